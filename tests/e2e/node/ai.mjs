// Vercel's AI SDK: a tool loop of its own, in the dialect that is named after the mode.

import { key, question, schema, sdk, streamed, tell, tool, url, weather } from "./sdk.mjs";

const { generateText, jsonSchema, stepCountIs, streamText, tool: ai } = sdk("ai");
const settings = (path) => ({ baseURL: url + path, apiKey: key });
const models = {
  anthropic: () => sdk("@ai-sdk/anthropic").createAnthropic(settings("/v1"))("m"),
  openai: () => sdk("@ai-sdk/openai").createOpenAI(settings("/v1")).chat("m"),
  compatible: () =>
    sdk("@ai-sdk/openai-compatible").createOpenAICompatible({
      name: "relay",
      includeUsage: true,
      ...settings("/v1"),
    })("m"),
  // Refers to items of earlier answers by their ids, unless it is told store: false.
  responses: () => sdk("@ai-sdk/openai").createOpenAI(settings("/v1"))("m"),
  gemini: () => sdk("@ai-sdk/google").createGoogleGenerativeAI(settings("/v1beta"))("m"),
};

const asked = {
  model: models[process.argv[3]](),
  prompt: question,
  tools: {
    [tool.name]: ai({
      description: tool.description,
      inputSchema: jsonSchema(schema),
      execute: async (input) => weather(input),
    }),
  },
  stopWhen: stepCountIs(3),
  maxRetries: 0,
};
const answer = streamed
  ? streamText({ ...asked, onError: ({ error }) => console.error(error) })
  : await generateText(asked);
const [first, last] = await answer.steps;
tell(
  first.toolCalls.map((call) => [call.toolCallId, call.toolName, call.input]),
  last.text,
  [last.usage.inputTokens, last.usage.outputTokens],
);
