// What the scripts beside this one share: an SDK as `.ci/clients` installed it, where relay is,
// and the tool that every model is offered.
//
//     node anthropic.mjs streamed     one tool round trip; prints { calls, text, usage } as JSON

import { createRequire } from "node:module";

export const sdk = createRequire(`${process.env.RELAY_TEST_SDKS}/package.json`);
export const url = process.env.RELAY_URL;
export const key = process.env.RELAY_KEY;
export const streamed = process.argv[2] === "streamed";

export const question = "What is the weather in Oslo?";
export const tool = { name: "get_weather", description: "Weather, now." };
export const schema = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
};
export const weather = ({ city }) => `${city}: 22 C`;

export function tell(calls, text, usage) {
  console.log(JSON.stringify({ calls, text, usage }));
}
