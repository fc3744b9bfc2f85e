// The log of changes, by operators and by the system itself.

import { html, useEffect, useState } from "/assets/vendor/preact-htm.module.js";
import { call } from "/assets/api.js";
import { fromLocal, instant, localInput, NONE, who } from "/assets/format.js";
import { Older, useList } from "/assets/lists.js";
import { DeviceName } from "/assets/names.js";
import { usePoll } from "/assets/poll.js";
import { setQuery } from "/assets/router.js";
import { described } from "/assets/selector.js";
import { Table } from "/assets/table.js";
import { Page, Section, When } from "/assets/ui.js";

const SHOWN_ON_A_PAGE = 10;
const LONG = 120;

const linked = (to) => (id) => html`<a class="name" href="${to}${encodeURIComponent(id)}">${id}</a>`;
const named = (to, text) => () => html`<a href=${to}>${text}</a>`;

/** The object of an event as a link; kind: the part before the colon. */
const OBJECTS = {
  device: (id) => html`<${DeviceName} id=${id} />`,
  devices: named("/devices", "several devices"),
  build: (id) => html`<a href="/builds/${encodeURIComponent(id)}">build ${id}</a>`,
  package: named("/builds", "builds"),
  command: linked("/commands/"),
  schedule: linked("/schedules/"),
  group: linked("/devices?group="),
  alert_rule: linked("/alerts/rules?rule="),
  mute: (id) => html`<a href="/alerts/mutes">mute ${id}</a>`,
  enroll_token: named("/enroll", "enrollment token"),
  enroll_tokens: named("/enroll", "enrollment tokens"),
};

function About({ object }) {
  const [kind, ...rest] = object.split(":");
  const id = rest.join(":");
  return OBJECTS[kind]?.(id) ?? object;
}

const ISO = /^\d{4}-\d\d-\d\dT\d\d:\d\d/;

function said(name, value) {
  if (value === null) return "none";
  if (typeof value === "string") return ISO.test(value) ? instant(value) : value;
  if (name === "filter") return described(value);
  if (name === "labels") return Object.entries(value).map((pair) => pair.join("=")).join(", ") || "none";
  return JSON.stringify(value);
}

const EMPTY = ["null", "{}", "[]"];

/** [[name, text]]: the changed values, without the null values of a created or deleted object. */
function changes({ before, after }) {
  const names = [...new Set([...Object.keys(after ?? {}), ...Object.keys(before ?? {})])];
  return names.flatMap((name) => {
    const [was, is] = [before, after].map((values) => (values && name in values ? said(name, values[name]) : null));
    if (was !== null && is !== null) return [[name, `${was} → ${is}`]];
    if (EMPTY.includes(JSON.stringify((after ?? before)[name]))) return [];
    return [[name, is ?? `was ${was}`]];
  });
}

const words = (name) => name.replaceAll("_", " ");

const Changes = ({ of }) => html`
  <ul class="changes">${of.map(([name, text]) => html`<li><span class="muted">${words(name)}</span> ${text}</li>`)}</ul>
`;

/** One line; longer texts can be expanded. */
function Change({ event }) {
  const all = changes(event);
  if (!all.length) return NONE;
  const line = all.map(([name, text]) => `${words(name)} ${text}`).join(" · ");
  if (all.length === 1 && line.length <= LONG) return html`<${Changes} of=${all} />`;
  return html`
    <details class="changes">
      <summary><span>${line.length > LONG ? `${line.slice(0, LONG)} …` : line}</span></summary>
      <${Changes} of=${all} />
    </details>
  `;
}

const filtered = (name, value, text) => html`
  <a class="plain" href="/events?${new URLSearchParams({ [name]: value })}" title="Only ${value}">${text}</a>
`;

/** The session of an assumed role identifies the person. */
const person = (event) => event.session ?? who(event.actor);

const COLUMNS = [
  { key: "at", label: "When", head: true, kind: "brief", cell: (event) => html`<${When} at=${event.at} />` },
  { key: "who", label: "Who", kind: "wide", cell: (event) => filtered("actor", event.actor, person(event)) },
  {
    key: "action",
    label: "Action",
    cell: (event) => html`
      ${filtered("action", event.action, event.action)}
      <div class="slim muted">by ${person(event)} <${Change} event=${event} /></div>
    `,
  },
  { key: "object", label: "Object", cell: (event) => html`<${About} object=${event.object} />` },
  { key: "change", label: "Change", kind: "wide", cell: (event) => html`<${Change} event=${event} />` },
  { key: "ip", label: "IP address", kind: "wide", cell: (event) => event.ip ?? NONE },
];

const EventsTable = ({ events, without = [], empty }) => html`
  <${Table} caption="Events, newest first" columns=${COLUMNS.filter(({ key }) => !without.includes(key))} rows=${events}
    id=${(event) => event.event_id} empty=${empty} />
`;

/** The last events of one object, such as device:ID. */
export function LatestEvents({ object }) {
  const query = new URLSearchParams({ object });
  const { data, error } = usePoll(`latest events ${object}`, (signal) =>
    call("GET", `/v1/events?${query}&limit=${SHOWN_ON_A_PAGE}`, { signal }),
  );
  return html`
    <${Section} title="Events" actions=${html`<a href="/events?${query}">All events</a>`}>
      ${error && html`<p class="muted">${error.message}</p>`}
      ${data && html`
        <${EventsTable} events=${data.items} without=${["object", "ip"]} empty="There are no changes within the retention period." />
      `}
    <//>
  `;
}

const FILTERS = ["actor", "action", "object", "since"];
const NOTHING = "There are no changes within the retention period.";
const NO_FIT = "No event matches this filter. Use a * at the end for a prefix, as in build.*";

export function Events({ query }) {
  const asked = Object.fromEntries(FILTERS.map((name) => [name, query.get(name) ?? ""]));
  const list = useList("/v1/events", asked);
  const events = list.data?.items ?? [];
  const any = FILTERS.some((name) => asked[name]);
  const known = (name) => [...new Set(events.map((event) => event[name]))].sort();
  return html`
    <${Page} title="Events" poll=${list}>
      <form role="search" class="filters" onSubmit=${(event) => event.preventDefault()}>
        <${Text} name="actor" label="Actor" value=${asked.actor} placeholder="an ARN, system:*" known=${known("actor")} />
        <${Text} name="action" label="Action" value=${asked.action} placeholder="device.delete, build.*" known=${known("action")} />
        <${Text} name="object" label="Object" value=${asked.object} placeholder="device:ID, schedule:*" known=${known("object")} />
        <label>
          Since
          <input type="datetime-local" value=${localInput(asked.since)}
            onChange=${({ target }) => setQuery({ since: fromLocal(target.value) })} />
        </label>
        ${any && html`
          <button type="button" class="low" onClick=${() => setQuery(Object.fromEntries(FILTERS.map((name) => [name, null])))}>
            Clear
          </button>
        `}
      </form>
      ${list.data && html`
        <${EventsTable} events=${events} empty=${any ? NO_FIT : NOTHING} />
        <${Older} list=${list} />
      `}
    <//>
  `;
}

/** A filter that takes effect when typing pauses; known: values to choose from. */
function Text({ name, label, value, placeholder, known }) {
  const [text, setText] = useState(value);
  useEffect(() => setText(value), [value]);
  useEffect(() => {
    const paused = setTimeout(() => text.trim() !== value && setQuery({ [name]: text.trim() }), 300);
    return () => clearTimeout(paused);
  }, [text]);
  return html`
    <label>
      ${label}
      <input type="search" name=${name} list="known-${name}" value=${text} placeholder=${placeholder} autocomplete="off"
        spellcheck="false" maxlength="300" onInput=${(event) => setText(event.target.value)} />
      <datalist id="known-${name}">${known.map((one) => html`<option value=${one}></option>`)}</datalist>
    </label>
  `;
}
