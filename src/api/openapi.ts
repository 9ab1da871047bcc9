/** The API as an OpenAPI 3.1 document, made from the table of actions. */
import { z } from "zod";
import { type Action, ACTIONS, STREAMS } from "./actions.ts";
import { FAULT_STATUS } from "./fault.ts";
import { EventJson } from "./schema.ts";

type Json = { [key: string]: unknown };
const schemaOf = (s: z.ZodType, io: "input" | "output"): Json => { const { $schema: _, ...schema } = z.toJSONSchema(s, { io, unrepresentable: "any" }) as Json; return schema; };
const json = (schema: Json): Json => ({ "application/json": { schema } });
const fault = { $ref: "#/components/schemas/Fault" }, answer = (result: Json): Json => ({ type: "object", properties: { result, error: fault } });

function operation(name: string, a: Action): Json {
  const result = schemaOf(a.result, "output"), isLong = a.isLong === true;
  return {
    operationId: name, summary: a.doc, tags: [name.split(".")[0]], "x-role": a.role,
    requestBody: { required: true, content: json(schemaOf(a.params, "input")) },
    responses: {
      200: isLong ? { description: "Lines of JSON: the task's number, its progress, and last its result or error", content: { "application/x-ndjson": { schema: { oneOf: [{ type: "object", properties: { task: { type: "string" } } }, { type: "object", properties: { progress: { $ref: "#/components/schemas/Progress" } } }, answer(result)] } } } }
        : { description: "Done", content: json(answer(result)) },
      default: { description: "Refused", content: json({ type: "object", properties: { error: fault } }) },
    },
  };
}

/** The document. */
export function openApi(version: string): Json {
  return {
    openapi: "3.1.0", info: { title: "Domus host API", version, description: "Actions of a host. Roles: read, operate, admin; each holds those before it. A long action goes on when its reader leaves; task.watch finds it again." },
    security: [{ token: [] }, { certificate: [] }],
    paths: {
      ...Object.fromEntries(Object.entries(ACTIONS).map(([name, a]) => [`/v1/${name}`, { post: operation(name, a as Action) }])),
      "/v1/events": { get: {
        operationId: "events", summary: "Events from now on, or after one; a line of JSON each, or a message each over WebSocket", tags: ["events"], "x-role": "read",
        parameters: [{ name: "since", in: "query", schema: { type: "integer" } }], responses: { 200: { description: "Lines of JSON", content: { "application/x-ndjson": { schema: schemaOf(EventJson, "output") } } } },
      } },
      ...Object.fromEntries(Object.entries(STREAMS).map(([name, s]) => [`/v1/streams/${name}`, { get: {
        operationId: name, summary: `${s.doc}; by "Upgrade: domus", or by WebSocket with binary messages`, tags: ["streams"], "x-role": s.role,
        parameters: Object.entries((schemaOf(s.params, "input")["properties"] ?? {}) as Json).map(([key, schema]) => ({ name: key, in: "query", schema })), responses: { 101: { description: "The stream's bytes from here on" } },
      } }])),
    },
    components: {
      securitySchemes: { token: { type: "http", scheme: "bearer" }, certificate: { type: "mutualTLS" } },
      schemas: {
        Fault: { type: "object", required: ["code", "message"], properties: { code: { type: "string", enum: Object.keys(FAULT_STATUS) }, message: { type: "string" } } },
        Progress: { type: "object", properties: { text: { type: "string" }, done: { type: "number" }, total: { type: "number" } } },
      },
    },
  };
}
