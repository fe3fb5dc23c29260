// OpenAI's own JavaScript client against a server of confroute: its base URL is the only argument, the results go to standard output.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "none", maxRetries: 0 });
const asked = { model: "confroute", messages: [{ role: "user", content: "Capital of Switzerland?" }] };

const models = [];
for await (const model of client.models.list()) models.push(model.id);

const { data, response } = await client.chat.completions.create(asked).withResponse();

const stream = await client.chat.completions.create({
  ...asked,
  stream: true,
  stream_options: { include_usage: true },
});
const parts = [];
let decision, usage;
for await (const chunk of stream) {
  if (chunk.choices[0]?.delta?.content) parts.push(chunk.choices[0].delta.content);
  decision = chunk.metadata?.confroute ?? decision;
  usage = chunk.usage ?? usage;
}

// The helper that puts a stream together refuses what is not in the format.
const whole = await client.chat.completions.stream(asked).finalChatCompletion();

let refusal;
try {
  await client.chat.completions.create({ ...asked, metadata: { confroute_rout: "edge" } });
} catch (error) {
  refusal = { kind: error.constructor.name, status: error.status, message: error.message };
}

console.log(
  JSON.stringify({
    models,
    text: data.choices[0].message.content,
    header: JSON.parse(response.headers.get("x-confroute-decision")),
    body: data.metadata.confroute,
    parts,
    decision,
    usage,
    whole: whole.choices[0].message.content,
    refusal,
  }),
);
