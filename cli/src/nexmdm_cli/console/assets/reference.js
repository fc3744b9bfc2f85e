// The API reference, rendered from the OpenAPI 3.1 document in this package.

import { html, useEffect, useState } from "/assets/vendor/preact-htm.module.js";
import { Problem } from "/assets/api.js";
import { count } from "/assets/format.js";
import { describe, operations, resolve } from "/assets/openapi.js";
import { usePoll } from "/assets/poll.js";
import { Page, Section } from "/assets/ui.js";

async function read(signal) {
  const answer = await fetch("/assets/openapi.json", { signal });
  if (!answer.ok)
    throw new Problem(answer.status, { detail: "The OpenAPI document is missing from this installation." });
  return answer.json();
}

export function Reference() {
  const { data: document, error } = usePoll("openapi", read, () => null);
  const [text, setText] = useState("");
  const wanted = text.trim().toLowerCase();
  const groups = document ? operations(document) : [];
  const shown = groups
    .map(([tag, list]) => [tag, list.filter((one) => one.searchable.includes(wanted))])
    .filter(([, list]) => list.length);
  const total = shown.reduce((sum, [, list]) => sum + list.length, 0);
  return html`
    <${Page} title="API reference" poll=${error && { error, refresh: () => location.reload() }}
      actions=${html`<a class="button" href="/assets/openapi.json" download="nexmdm-openapi.json">OpenAPI document</a>`}>
      ${document && html`
        <${Prose} text=${document.info.description ?? document.info.title} />
        <form role="search" class="filters" onSubmit=${(event) => event.preventDefault()}>
          <label>
            Search
            <input type="search" value=${text} placeholder="path, method, word"
              onInput=${(event) => setText(event.target.value)} />
          </label>
        </form>
        <p class="muted" role="status">${count(total, "operation")}, version ${document.info.version}</p>
        ${shown.map(([tag, list]) => html`
          <${Section} key=${tag} title=${tag}>
            <${Prose} text=${document.tags?.find(({ name }) => name === tag)?.description} />
            <div>${list.map((one) => html`<${Operation} key=${one.id} of=${one} document=${document} />`)}</div>
          <//>
        `)}
        ${document.components?.schemas?.Problem && html`
          <${Section} title="Problem documents">
            <${Schema} schema=${{ $ref: "#/components/schemas/Problem" }} document=${document} seen=${[]} />
          <//>
        `}
      `}
    <//>
  `;
}

/** Renders text in backticks as code. */
const inline = (text) => text?.split("`").map((part, n) => (n % 2 ? html`<code>${part}</code>` : part));

const Prose = ({ text }) => text && html`
  <div class="prose">${text
    .trim()
    .split(/\n\s*\n/)
    .map((paragraph) => html`<p>${inline(paragraph)}</p>`)}</div>
`;

function Operation({ of: { id, method, path, operation }, document }) {
  const [open, setOpen] = useState(location.hash === `#${id}`);
  useEffect(() => {
    if (open) window.document.getElementById(id).scrollIntoView();
  }, []);
  const { summary, description, parameters = [], requestBody, responses = {} } = operation;
  return html`
    <details class="operation" id=${id} open=${open} onToggle=${(event) => setOpen(event.target.open)}>
      <summary>
        <span class="method ${method}">${method}</span> <code>${path}</code> <span class="muted">${inline(summary)}</span>
      </summary>
      ${open && html`
        <div class="operation-body">
          <${Prose} text=${description} />
          <p class="muted"><a href="#${id}">Link</a> · ${caller(operation, document)}</p>
          ${parameters.length > 0 && html`<h3>Parameters</h3><${Parameters} list=${parameters} document=${document} />`}
          ${requestBody && html`<h3>Body</h3><${Content} of=${resolve(requestBody, document)} document=${document} />`}
          <h3>Answers</h3>
          <dl class="answers">
            ${Object.entries(responses).map(([status, given]) => {
              const answer = resolve(given, document);
              return html`
                <div>
                  <dt><code>${status}</code></dt>
                  <dd>
                    <${Prose} text=${answer.description} />
                    ${status < "400" && html`<${Content} of=${answer} document=${document} />`}
                  </dd>
                </div>
              `;
            })}
          </dl>
        </div>
      `}
    </details>
  `;
}

/** The security schemes of an operation. */
function caller(operation, document) {
  const needs = operation.security ?? document.security ?? [];
  const names = needs.map((need) => Object.keys(need).join(" and ")).filter(Boolean);
  return names.length ? `authenticated by ${names.join(" or ")}` : "no credentials";
}

const Parameters = ({ list, document }) => html`
  <ul class="schema">
    ${list.map((given) => {
      const parameter = resolve(given, document);
      const schema = { description: parameter.description, ...resolve(parameter.schema ?? {}, document) };
      return html`
        <${Property} name=${parameter.name} schema=${schema} required=${parameter.required} place=${parameter.in}
          document=${document} seen=${[]} />
      `;
    })}
  </ul>
`;

const Content = ({ of: { content = {} }, document }) =>
  Object.entries(content).map(([type, { schema, examples = {} }]) => html`
    <p class="muted"><code>${type}</code></p>
    ${schema && html`<${Schema} schema=${schema} document=${document} seen=${[]} />`}
    ${Object.values(examples)
      .slice(0, 1)
      .map(({ value }) => html`<pre>${JSON.stringify(value, null, 2)}</pre>`)}
  `);

/** A schema as a list of its properties, or one line if it has none. `seen` stops recursion. */
function Schema({ schema: given, document, seen }) {
  const name = given.$ref;
  if (seen.includes(name)) return html`<span class="muted">${name.split("/").at(-1)}, as above</span>`;
  const schema = resolve(given, document);
  const inside = name ? [...seen, name] : seen;
  const choices = schema.oneOf ?? schema.anyOf ?? schema.allOf;
  if (choices?.some((choice) => resolve(choice, document).properties)) {
    return html`
      <p class="muted">${schema.allOf ? "all of" : "one of"}</p>
      <ul class="schema">
        ${choices.map((choice) => html`
          <li>
            ${choice.$ref && html`<strong>${choice.$ref.split("/").at(-1)}</strong>`}
            <${Schema} schema=${choice} document=${document} seen=${inside} />
          </li>
        `)}
      </ul>
    `;
  }
  if (schema.properties) {
    return html`
      <ul class="schema">
        ${Object.entries(schema.properties).map(([property, its]) => html`
          <${Property} name=${property} schema=${its} required=${schema.required?.includes(property)}
            document=${document} seen=${inside} />
        `)}
      </ul>
    `;
  }
  if (schema.items)
    return html`
      <span class="muted">${describe(schema, document)}</span>
      <${Schema} schema=${schema.items} document=${document} seen=${inside} />
    `;
  return html`<span class="muted">${describe(schema, document)}</span>`;
}

function Property({ name, schema: given, required, place, document, seen }) {
  const schema = resolve(given, document);
  const within = schema.items ?? schema;
  const nested =
    resolve(within, document).properties ||
    (schema.oneOf ?? schema.anyOf)?.some((choice) => resolve(choice, document).properties);
  return html`
    <li>
      <code>${name}</code> ${required && html`<strong class="required">required</strong>`}
      ${place && html` <span class="muted">in ${place}</span>`} <span class="muted">${describe(schema, document)}</span>
      ${(schema.description ?? given.description) && html`<${Prose} text=${schema.description ?? given.description} />`}
      ${nested && html`<${Schema} schema=${schema.items ?? given} document=${document} seen=${seen} />`}
    </li>
  `;
}
