// Functions that read an OpenAPI 3.1 document.

const METHODS = ["get", "post", "put", "patch", "delete"];

/** Resolve a `$ref` within the document. */
export function resolve(value, document) {
  if (!value?.$ref) return value;
  const path = value.$ref
    .replace(/^#\//, "")
    .split("/")
    .map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"));
  const found = path.reduce((inside, part) => inside?.[part], document);
  return resolve(found, document) ?? {};
}

/** [[tag, [{id, method, path, operation, searchable}]]], in the document's own order. */
export function operations(document) {
  const groups = new Map((document.tags ?? []).map(({ name }) => [name, []]));
  for (const [path, methods] of Object.entries(document.paths)) {
    for (const method of METHODS.filter((name) => methods[name])) {
      const operation = {
        ...methods[method],
        parameters: [...(methods.parameters ?? []), ...(methods[method].parameters ?? [])],
      };
      const tag = operation.tags?.[0] ?? "Routes";
      const id = operation.operationId ?? `${method}-${path.replaceAll(/\W+/g, "-")}`;
      const searchable = [method, path, operation.summary, operation.description, tag].join(" ").toLowerCase();
      groups.set(tag, [...(groups.get(tag) ?? []), { id, method, path, operation, searchable }]);
    }
  }
  return [...groups].filter(([, list]) => list.length);
}

const LIMITS = [
  ["minLength", "at least", "characters"],
  ["maxLength", "at most", "characters"],
  ["minimum", "from", ""],
  ["maximum", "to", ""],
  ["minItems", "at least", "items"],
  ["maxItems", "at most", "items"],
];

/** A text for a type and its limits: `integer, from 1, to 500, default 100`. */
export function describe(given, document) {
  const schema = resolve(given, document) ?? {};
  const words = [
    typeOf(schema, document),
    ...LIMITS.filter(([key]) => key in schema).map(([key, before, after]) =>
      `${before} ${schema[key]} ${after}`.trim(),
    ),
  ];
  if (schema.format) words.push(schema.format);
  if (schema.pattern) words.push(`like ${schema.pattern}`);
  if ("default" in schema) words.push(`default ${JSON.stringify(schema.default)}`);
  return words.filter(Boolean).join(", ");
}

function typeOf(schema, document) {
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  if ("const" in schema) return JSON.stringify(schema.const);
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return [...new Set(choices.map((choice) => describe(choice, document)))].join(" or ");
  if (schema.type === "array") return `list of ${describe(schema.items ?? {}, document) || "anything"}`;
  return [schema.type ?? (schema.properties ? "object" : "anything")].flat().join(" or ");
}
