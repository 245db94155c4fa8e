// openai: responses, and the helper that puts a stream together.

import { key, question, schema, sdk, streamed, tell, tool, url, weather } from "./sdk.mjs";

const { OpenAI } = sdk("openai");
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });

async function say(input) {
  const tools = [{ type: "function", strict: false, ...tool, parameters: schema }];
  const include = ["reasoning.encrypted_content"];
  const asked = { model: "m", input, tools, store: false, include };
  return streamed
    ? await client.responses.stream(asked).finalResponse()
    : await client.responses.create(asked);
}

const asked = [{ role: "user", content: question }];
const first = await say(asked);
const calls = first.output.filter((item) => item.type === "function_call");
const results = calls.map((call) => ({
  type: "function_call_output",
  call_id: call.call_id,
  output: weather(JSON.parse(call.arguments)),
}));
const said = first.output.map(({ parsed_arguments: _, ...item }) => item);
const last = await say([...asked, ...said, ...results]);
tell(
  calls.map((call) => [call.call_id, call.name, JSON.parse(call.arguments)]),
  last.output_text,
  [last.usage.input_tokens, last.usage.output_tokens],
);
