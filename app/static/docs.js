// The reference, drawn from /openapi.json.

const at = (id) => document.getElementById(id);
const document_ = await description();

async function description() {
  try {
    const response = await fetch("/openapi.json");
    if (!response.ok) throw new Error(`the service answered ${response.status}`);
    return await response.json();
  } catch (error) {
    const words = `The reference cannot be shown: /openapi.json cannot be read (${error.message}). Load the page again in a moment.`;
    at("reference").append(element("p", words, { class: "problem", role: "alert" }));
    throw error;
  }
}

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

const resolved = (schema) => (schema?.$ref ? document_.components.schemas[schema.$ref.split("/").pop()] : schema ?? {});

function kind(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(kind).join(" or ");
  if (schema.enum) return schema.enum.filter(Boolean).join(" | ");
  if (schema.const) return String(schema.const);
  if (schema.type === "array") return `${kind(schema.items ?? {})}, repeated`;
  const range = ["minimum", "maximum"].map((name) => schema[name]);
  const limits = range.some((limit) => limit !== undefined) ? ` ${range.map((limit) => (Number.isSafeInteger(limit) ? limit : "")).join("..")}` : "";
  return `${schema.format === "binary" ? "file" : schema.format ?? schema.type ?? "any"}${limits}`;
}

// The names of the schemas that one refers to, be it in a list or in a choice.
function named(schema) {
  if (schema.$ref) return [kind(schema)];
  return [...(schema.anyOf ?? []), schema.items, schema.additionalProperties].filter((part) => typeof part === "object").flatMap(named);
}

const plain = (text) => text.replaceAll("`", "");

function table(caption, rows) {
  const made = element("table");
  made.append(element("caption", caption));
  for (const { name, schema, required, description } of rows) {
    const row = element("tr");
    const head = element("th", "", { scope: "row" });
    head.append(element("code", name));
    const fallback = [undefined, null, ""].includes(schema.default) ? "" : `, default ${schema.default}`;
    row.append(head, element("td", kind(schema) + (required ? ", required" : fallback)));
    row.append(element("td", plain(description ?? schema.description ?? "")));
    made.append(row);
  }
  const box = element("div", "", { class: "scroll" });
  box.append(made);
  return box;
}

function properties(schema) {
  const { properties: fields = {}, required = [] } = resolved(schema);
  return Object.entries(fields).map(([name, field]) => ({ name, schema: field, required: required.includes(name) }));
}

function operation(path, method, described) {
  const made = element("details", "", { id: described.operationId });
  const summary = element("summary");
  const about = plain(described.description ?? described.summary);
  summary.append(element("code", method.toUpperCase(), { class: "method", "data-method": method }), element("code", path), element("span", about));
  made.append(summary);
  if (described.parameters?.length) made.append(table("Parameters", described.parameters));
  for (const [type, body] of Object.entries(described.requestBody?.content ?? {})) made.append(table(`Body, ${type}`, properties(body.schema)));
  const told = new Set();
  for (const [status, response] of Object.entries(described.responses)) {
    if (status === "default") continue;
    const words = response.description === "Successful Response" ? "" : `: ${plain(response.description)}`;
    made.append(element("p", status + words, { class: "hint" }));
    made.append(...schemaTables(response.content?.["application/json"]?.schema ?? {}, told));
  }
  return made;
}

// A table for each schema that an answer consists of, but for those told before.
function schemaTables(schema, told) {
  return named(schema).filter((name) => !told.has(name)).flatMap((name) => {
    told.add(name);
    const rows = properties({ $ref: `/${name}` });
    return [table(name, rows), ...rows.flatMap((row) => schemaTables(row.schema, told))];
  });
}

const rooms = new Map();
for (const [path, methods] of Object.entries(document_.paths)) {
  for (const [method, described] of Object.entries(methods)) {
    const room = described.tags?.[0] ?? "other";
    if (!rooms.has(room)) rooms.set(room, []);
    rooms.get(room).push(operation(path, method, described));
  }
}
at("title").textContent = `pansynth ${document_.info.version}: API reference`;
at("description").textContent = "Errors are application/problem+json: type, title, status, detail, and errors by field.";
for (const scheme of Object.values(document_.components.securitySchemes ?? {})) {
  at("reference").append(element("p", plain(scheme.description), { class: "hint" }));
}
for (const [room, operations] of rooms) {
  const card = element("section", "", { class: "card" });
  card.append(element("h2", room), ...operations);
  at("reference").append(card);
}

// Opens the operation that the address names.
function openAddressed() {
  const named = at(location.hash.slice(1));
  named?.setAttribute("open", "");
  named?.scrollIntoView();
}
addEventListener("hashchange", openAddressed);
openAddressed();
