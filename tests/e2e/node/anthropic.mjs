// @anthropic-ai/sdk: messages, and the helper that puts a stream together.

import { key, question, schema, sdk, streamed, tell, tool, url, weather } from "./sdk.mjs";

const { Anthropic } = sdk("@anthropic-ai/sdk");
const client = new Anthropic({ baseURL: url, apiKey: key, maxRetries: 0 });

async function say(messages) {
  const tools = [{ ...tool, input_schema: schema }];
  const asked = { model: "m", max_tokens: 9000, messages, tools };
  return streamed
    ? await client.messages.stream(asked).finalMessage()
    : await client.messages.create(asked);
}

const asked = [{ role: "user", content: question }];
const first = await say(asked);
const calls = first.content.filter((block) => block.type === "tool_use");
const results = calls.map((call) => ({
  type: "tool_result",
  tool_use_id: call.id,
  content: weather(call.input),
}));
const last = await say([
  ...asked,
  { role: "assistant", content: first.content },
  { role: "user", content: results },
]);
tell(
  calls.map((call) => [call.id, call.name, call.input]),
  last.content.map((block) => block.text ?? "").join(""),
  [last.usage.input_tokens + (last.usage.cache_read_input_tokens ?? 0), last.usage.output_tokens],
);
