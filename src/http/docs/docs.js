// Shows /openapi.json: routes by group, their parameters, bodies and answers, and the schemas.
// Whatever the document says is shown as text, never as markup.
"use strict";

const METHODS = ["get", "post", "put", "patch", "delete"];

/** An element; `children` are elements or texts, and what is falsy is left out. */
function el(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.flat().filter(Boolean));
  return element;
}

/** Text with `code` in it, in paragraphs. */
const prose = (text = "") =>
  text.split(/\n{2,}/).filter(Boolean).map((paragraph) =>
    el("p", {}, paragraph.split(/`([^`]*)`/).map((part, n) => (n % 2 ? el("code", {}, part) : part))));

const anchor = (kind, name) => `${kind}-${name.replace(/\W+/g, "-").toLowerCase()}`;

let openapi;

function resolve(thing) {
  const path = thing?.$ref?.split("/").slice(1);
  return path ? path.reduce((at, name) => at?.[name], openapi) ?? {} : thing ?? {};
}

/** The type of a schema in a few words; those of components are links. */
function type(schema = {}) {
  if (schema === true) return ["anything"];
  if (schema.$ref) {
    const name = schema.$ref.split("/").at(-1);
    return [el("a", { href: `#${anchor("schema", name)}` }, name)];
  }
  const several = schema.anyOf ?? schema.oneOf;
  if (several) return several.flatMap((one, n) => (n ? [" or ", ...type(one)] : type(one)));
  if (schema.enum) return [schema.enum.map((value) => JSON.stringify(value)).join(" | ")];
  if (schema.const !== undefined) return [JSON.stringify(schema.const)];
  const names = [schema.type ?? "anything"].flat();
  return names.flatMap((name, n) => [
    n ? " or " : "",
    ...(name === "array" ? ["array of ", ...type(schema.items)] : [schema.format && name !== "null" ? `${name} (${schema.format})` : name]),
  ]);
}

/** What a value must keep to, beyond its type. */
function limits(schema) {
  const said = [];
  const between = (low, high, what) => {
    if (low !== undefined && high !== undefined) said.push(`${low} to ${high}${what}`);
    else if (low !== undefined) said.push(`at least ${low}${what}`);
    else if (high !== undefined) said.push(`at most ${high}${what}`);
  };
  between(schema.minimum, schema.maximum, "");
  between(schema.minLength, schema.maxLength, " characters");
  between(schema.minItems, schema.maxItems, " items");
  if (schema.default !== undefined) said.push(`default ${JSON.stringify(schema.default)}`);
  if (schema.pattern) said.push(`matches ${schema.pattern}`);
  return said.join(", ");
}

/** Rows of name, type and meaning. */
function table(rows) {
  return el("div", { className: "rows" }, rows.map(({ name, where, required, schema, about }) =>
    el("div", { className: "row" },
      el("div", { className: "name" }, el("code", {}, name), required && el("span", { className: "required" }, "required"), where && el("span", { className: "where" }, where)),
      el("div", {}, el("span", { className: "type" }, type(schema)), limits(schema) && el("span", { className: "limits" }, limits(schema)), prose(about ?? schema.description)))));
}

function properties(schema) {
  const required = new Set(schema.required);
  const rows = Object.entries(schema.properties ?? {}).map(([name, one]) => ({ name, schema: one, required: required.has(name) }));
  const others = schema.additionalProperties;
  if (others && typeof others === "object") rows.push({ name: "…", schema: others, about: "Any other name." });
  return table(rows);
}

const example = (value) => value !== undefined && el("pre", {}, el("code", {}, JSON.stringify(value, null, 2)));

function operation(path, method, said) {
  const parameters = (said.parameters ?? []).map((parameter) => ({ ...parameter, where: parameter.in, about: parameter.description }));
  const body = said.requestBody?.content?.["application/json"]?.schema;
  const answers = Object.entries(said.responses).map(([status, response]) => {
    const { description, content } = resolve(response);
    const schema = content?.["application/json"]?.schema;
    return el("div", { className: "row" },
      el("div", { className: "name" }, el("code", { className: `status s${status[0]}` }, status)),
      el("div", {}, schema && el("span", { className: "type" }, type(schema)), prose(description)));
  });
  return el("section", { className: "operation", id: anchor("operation", said.operationId) },
    el("h3", {}, el("span", { className: `method ${method}` }, method.toUpperCase()), el("code", {}, path)),
    el("p", { className: "summary" }, said.summary ?? ""),
    prose(said.description),
    said.security?.length === 0 && el("p", { className: "open" }, "Needs no token."),
    parameters.length > 0 && [el("h4", {}, "Parameters"), table(parameters)],
    body && [el("h4", {}, "Body"), el("p", { className: "type" }, type(body)), properties(resolve(body)), example(resolve(body).examples?.[0])],
    el("h4", {}, "Answers"), el("div", { className: "rows" }, answers));
}

const group = (name, list) => el("div", { className: "group" }, el("h2", {}, name), list);

function show() {
  const groups = new Map();
  for (const [path, methods] of Object.entries(openapi.paths)) {
    for (const method of METHODS.filter((one) => methods[one])) {
      const said = methods[method];
      const tag = said.tags?.[0] ?? "Other";
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push({ path, method, said });
    }
  }
  const contents = [];
  const main = [
    el("h1", {}, openapi.info.title, el("small", {}, openapi.info.version)),
    prose(openapi.info.description),
    el("p", {}, "Who asks: ", el("code", {}, "Authorization: Bearer …"), ", or the cookie ", el("code", {}, "access_token"), ". The document itself: ", el("a", { href: "/openapi.json" }, "/openapi.json"), ". What is said over sockets and SSE: ", el("a", { href: "/asyncapi.json" }, "/asyncapi.json"), "."),
  ];
  for (const [tag, operations] of groups) {
    contents.push(group(tag, el("ul", {}, operations.map(({ path, method, said }) => {
      const item = el("li", {}, el("a", { href: `#${anchor("operation", said.operationId)}`, title: `${method.toUpperCase()} ${path}` },
        el("span", { className: `method ${method}` }, method.toUpperCase()), said.operationId));
      item.dataset.words = `${tag} ${said.operationId} ${method} ${path} ${said.summary ?? ""}`.toLowerCase();
      return item;
    }))));
    main.push(el("h2", {}, tag), ...operations.map(({ path, method, said }) => operation(path, method, said)));
  }
  const schemas = Object.entries(openapi.components?.schemas ?? {});
  contents.push(group("Schemas", el("ul", {}, schemas.map(([name]) => {
    const item = el("li", {}, el("a", { href: `#${anchor("schema", name)}` }, name));
    item.dataset.words = `schema ${name}`.toLowerCase();
    return item;
  }))));
  main.push(el("h2", {}, "Schemas"), ...schemas.map(([name, schema]) =>
    el("section", { className: "operation", id: anchor("schema", name) }, el("h3", {}, el("code", {}, name)), prose(schema.description), properties(schema), example(schema.examples?.[0]))));
  document.getElementById("contents").replaceChildren(...contents);
  document.getElementById("main").replaceChildren(...main.flat());
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

document.getElementById("filter").addEventListener("input", ({ target }) => {
  const words = target.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const item of document.querySelectorAll("#contents li")) item.hidden = !words.every((word) => item.dataset.words.includes(word));
  const groups = [...document.querySelectorAll("#contents .group")];
  for (const one of groups) one.hidden = !one.querySelector("li:not([hidden])");
  document.getElementById("nothing").hidden = groups.some((one) => !one.hidden);
});

fetch("/openapi.json")
  .then((response) => { if (!response.ok) throw new Error(`HTTP ${response.status}`); return response.json(); })
  .then((document) => { openapi = document; show(); })
  .catch((error) => { document.getElementById("loading").textContent = `/openapi.json could not be read: ${error.message}`; });
