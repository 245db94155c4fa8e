// openai: chat completions, and the helper that puts a stream together.

import { key, question, schema, sdk, streamed, tell, tool, url, weather } from "./sdk.mjs";

const { OpenAI } = sdk("openai");
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });

async function say(messages) {
  const tools = [{ type: "function", function: { ...tool, parameters: schema } }];
  const asked = { model: "m", messages, tools };
  if (!streamed) return await client.chat.completions.create(asked);
  const options = { stream_options: { include_usage: true } };
  return await client.chat.completions.stream({ ...asked, ...options }).finalChatCompletion();
}

const asked = [{ role: "user", content: question }];
const first = (await say(asked)).choices[0].message;
const calls = first.tool_calls.map((call) => ({
  id: call.id,
  name: call.function.name,
  input: JSON.parse(call.function.arguments),
}));
const results = calls.map((call) => ({
  role: "tool",
  tool_call_id: call.id,
  content: weather(call.input),
}));
const last = await say([...asked, first, ...results]);
tell(
  calls.map((call) => [call.id, call.name, call.input]),
  last.choices[0].message.content,
  [last.usage.prompt_tokens, last.usage.completion_tokens],
);
