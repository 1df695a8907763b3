// A provider of tools in another language: it serves autoglm.v1.ToolService, and that is all there is to it.
//
//     npm install && npm start                                    (HOST:PORT as the first argument, 127.0.0.1:50061 by default)
//     autoglm run --provider node=grpc://127.0.0.1:50061 "make a slug of 'Hello, World!'"

import { createHash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";
import { fromStruct, toValue } from "./values.js";

const protos = process.env.AUTOGLM_PROTOS ?? fileURLToPath(new URL("../../proto", import.meta.url));
const definition = protoLoader.loadSync("autoglm/v1/tool_service.proto", {
  includeDirs: [protos],
  defaults: true,
  enums: String,
  longs: Number,
  oneofs: true,
});
const { ToolService } = grpc.loadPackageDefinition(definition).autoglm.v1;

class ToolError extends Error {
  constructor(reason, message, { retryable = false } = {}) {
    super(message);
    this.failure = { reason, message, retryable };
  }
}

// --- the tools: what the catalog shows, and `run(arguments, call)`

const seats = new Map();

const tools = [
  {
    name: "slug",
    description: "Write a text as a part of a URL: lower case, words joined by hyphens.",
    effect: "EFFECT_READ_ONLY",
    inputSchema: {
      type: "object",
      properties: { text: { type: "string", minLength: 1 } },
      required: ["text"],
      additionalProperties: false,
    },
    outputSchema: { type: "string" },
    phrases: [{ pattern: "make a slug of {text:text}", answer: "The slug is {output}.", language: "en" }],
    async run({ text }) {
      const slug = text
        .normalize("NFKD")
        .toLowerCase()
        .replace(/[^a-z0-9]+/g, "-")
        .replace(/^-+|-+$/g, "");
      if (!slug) throw new ToolError("NOTHING_LEFT", "nothing of the text can stand in a URL");
      return slug;
    },
  },
  {
    name: "countdown",
    description: "Count down to zero, a tenth of a second each, and say how far it is.",
    effect: "EFFECT_READ_ONLY",
    inputSchema: {
      type: "object",
      properties: { from: { type: "integer", minimum: 1, maximum: 1000 } },
      required: ["from"],
      additionalProperties: false,
    },
    outputSchema: { type: "string" },
    async run({ from }, call) {
      for (let left = from; left > 0; left -= 1) {
        call.progress((from - left) / from, `${left} …`);
        await sleep(100, undefined, { signal: call.signal }); // ends when the plan is stopped
      }
      return "lift-off";
    },
  },
  {
    // IDEMPOTENT is a promise, kept by the idempotency key: the same for every attempt at a step.
    name: "reserve",
    description: "Reserve a seat. The same call gives the same seat, however often it is made.",
    effect: "EFFECT_IDEMPOTENT",
    inputSchema: {
      type: "object",
      properties: { name: { type: "string" } },
      required: ["name"],
      additionalProperties: false,
    },
    async run({ name }, { idempotencyKey }) {
      if (!seats.has(idempotencyKey)) seats.set(idempotencyKey, { name, seat: seats.size + 1 });
      return seats.get(idempotencyKey);
    },
  },
].sort((one, other) => (one.name < other.name ? -1 : 1));

const sha256 = (value) => `sha256:${createHash("sha256").update(JSON.stringify(value)).digest("hex")}`;

const listed = tools.map(({ run, inputSchema, outputSchema, ...shown }) => {
  const tool = {
    ...shown,
    inputSchema: JSON.stringify(inputSchema),
    outputSchema: outputSchema ? JSON.stringify(outputSchema) : "",
    available: true,
  };
  // Any text will do that changes when the tool does: a call for another one is refused below.
  return { ...tool, digest: sha256([tool.name, tool.effect, tool.inputSchema, tool.outputSchema]) };
});
const catalogDigest = sha256(listed);

// --- the service

const missing = (name) => ({ code: grpc.status.NOT_FOUND, details: `there is no tool ${JSON.stringify(name)}` });

function listTools({ request }, answer) {
  const after = listed.filter(
    (tool) =>
      tool.name > request.pageToken &&
      !request.provider &&
      request.tags.every((tag) => (tool.tags ?? []).includes(tag)),
  );
  const page = after.slice(0, Math.min(request.pageSize || 50, 500));
  const nextPageToken = page.length < after.length ? page.at(-1).name : "";
  answer(null, { tools: page, nextPageToken, catalogDigest });
}

function getTool({ request }, answer) {
  const tool = listed.find(({ name }) => name === request.name);
  answer(tool ? null : missing(request.name), { tool });
}

async function callTool(call) {
  const { name, toolDigest, idempotencyKey } = call.request;
  const tool = tools.find((one) => one.name === name);
  if (!tool) return call.destroy(missing(name));

  if (toolDigest && toolDigest !== listed.find((one) => one.name === name).digest) {
    const details = `${name} is another tool by now`;
    return call.destroy({ code: grpc.status.FAILED_PRECONDITION, details });
  }

  const stopped = new AbortController();
  call.on("cancelled", () => stopped.abort()); // by the caller, or because its deadline is over
  const progress = (fraction, message) => call.write({ progress: { fraction, message } });

  try {
    const output = await tool.run(fromStruct(call.request.arguments), {
      idempotencyKey,
      progress,
      signal: stopped.signal,
    });
    call.write({ result: { output: toValue(output) } });
  } catch (error) {
    if (stopped.signal.aborted) return console.error(`${name} was stopped`);

    // What a tool says of itself is data; anything else only that it failed, and the rest is for the log.
    if (!(error instanceof ToolError)) console.error(error);
    const failure = error.failure ?? { reason: "TOOL_ERROR", domain: "autoglm", message: "the tool failed" };
    call.write({ failure: { domain: name, ...failure } });
  }

  call.end();
}

const server = new grpc.Server({ "grpc.max_receive_message_length": 4 << 20 });
server.addService(ToolService.service, { listTools, getTool, callTool });

const [address = "127.0.0.1:50061"] = process.argv.slice(2);
server.bindAsync(address, grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  console.log(`serving ${tools.length} tools on ${address.replace(/:\d+$/, "")}:${port}`);
});

for (const signal of ["SIGTERM", "SIGINT"]) {
  process.once(signal, () => server.tryShutdown(() => process.exit(0))); // calls under way end first
}
