// @google/genai: generateContent and generateContentStream.

import { key, question, schema, sdk, streamed, tell, tool, url, weather } from "./sdk.mjs";

const { GoogleGenAI } = sdk("@google/genai");
const client = new GoogleGenAI({ apiKey: key, httpOptions: { baseUrl: url } });

async function say(contents) {
  const tools = [{ functionDeclarations: [{ ...tool, parametersJsonSchema: schema }] }];
  const asked = { model: "m", contents, config: { tools } };
  const chunks = [];
  if (streamed) {
    for await (const chunk of await client.models.generateContentStream(asked)) chunks.push(chunk);
  } else {
    chunks.push(await client.models.generateContent(asked));
  }
  const parts = chunks.flatMap((chunk) => chunk.candidates[0].content.parts);
  return { parts, usage: chunks.at(-1).usageMetadata };
}

const asked = [{ role: "user", parts: [{ text: question }] }];
const first = await say(asked);
const calls = first.parts.filter((part) => part.functionCall).map((part) => part.functionCall);
const results = calls.map(({ id, name, args }) => ({
  functionResponse: { id, name, response: { output: weather(args) } },
}));
const last = await say([
  ...asked,
  { role: "model", parts: first.parts },
  { role: "user", parts: results },
]);
tell(
  calls.map((call) => [call.id, call.name, call.args]),
  last.parts.map((part) => (part.thought ? "" : part.text ?? "")).join(""),
  [last.usage.promptTokenCount, last.usage.candidatesTokenCount],
);
