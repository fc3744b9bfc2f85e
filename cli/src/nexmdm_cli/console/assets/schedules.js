// Schedules: commands that are sent automatically. Instants are shown in the browser's time zone.

import { html, useRef, useState } from "/assets/vendor/preact-htm.module.js";
import { call, pages } from "/assets/api.js";
import { CommandState } from "/assets/commands.js";
import { LatestEvents } from "/assets/events.js";
import { count, instant, who } from "/assets/format.js";
import { usePoll } from "/assets/poll.js";
import { go } from "/assets/router.js";
import { described, useFilter } from "/assets/selector.js";
import { Parameters, parameters, Repeat, useActions } from "/assets/send.js";
import { Table } from "/assets/table.js";
import { Badge, Dialog, Facts, Field, Form, Notice, Page, Section, When } from "/assets/ui.js";

const address = (name) => `/v1/schedules/${encodeURIComponent(name)}`;
const RUNS = { started: "sent", missed: "failed", empty: "warn" };
const here = Intl.DateTimeFormat().resolvedOptions().timeZone;

const Run = ({ run }) =>
  run
    ? html`<span class="state"><${Badge} name=${RUNS[run.status]} label=${run.status} /> <${When} at=${run.scheduled_for} /></span>`
    : "never";

const COLUMNS = [
  {
    key: "name",
    label: "Schedule",
    head: true,
    cell: (schedule) => html`<a class="name" href="/schedules/${encodeURIComponent(schedule.name)}">${schedule.name}</a>`,
  },
  { key: "action", label: "Command", cell: (schedule) => schedule.action },
  { key: "when", label: "When", kind: "wide", cell: (schedule) => timing(schedule) },
  {
    key: "next",
    label: "Next run",
    cell: (schedule) => (schedule.enabled ? instant(schedule.next_run_at) : "off"),
  },
  { key: "last", label: "Last run", cell: (schedule) => html`<${Run} run=${schedule.last_run} />` },
];

const timing = (schedule) =>
  schedule.cron ? html`<code>${schedule.cron}</code> ${schedule.timezone}` : `once, ${instant(schedule.at)}`;

async function all(signal) {
  const items = [];
  for await (const page of pages("/v1/schedules", new URLSearchParams(), signal)) items.push(...page);
  return items;
}

export function Schedules() {
  const poll = usePoll("schedules", all);
  const [making, setMaking] = useState(false);
  const made = () => {
    setMaking(false);
    poll.refresh();
  };
  const actions = html`<button type="button" class="primary" onClick=${() => setMaking(true)}>New schedule</button>`;
  return html`
    <${Page} title="Schedules" poll=${poll} actions=${actions}>
      ${poll.data && html`
        <${Table} caption="Schedules" columns=${COLUMNS} rows=${poll.data} id=${(schedule) => schedule.name}
          empty="There are no schedules. A schedule sends a command automatically, such as every night at 3:00." />
      `}
      ${making && html`<${Create} onDone=${made} onClose=${() => setMaking(false)} />`}
    <//>
  `;
}

function Create({ onDone, onClose }) {
  const actions = useActions();
  return html`
    <${Dialog} title="New schedule" onClose=${onClose}>
      ${actions && html`<${Compose} actions=${actions} onDone=${onDone} />`}
    <//>
  `;
}

// The API stores and shows a schedule's parameters, so a schedule cannot have secrets.
const withoutSecrets = (actions) =>
  Object.entries(actions).filter(([, { params }]) => !Object.values(params).some((spec) => spec.secret && spec.required));

function Compose({ actions, onDone }) {
  const offered = withoutSecrets(actions);
  const [action, setAction] = useState("ping");
  const [variant, setVariant] = useState("");
  const [once, setOnce] = useState(false);
  const { filter, fields, ready } = useFilter();
  const { about, repeat } = actions[action];
  const params = Object.fromEntries(Object.entries(actions[action].params).filter(([, spec]) => !spec.secret));
  const submit = async (form) => {
    const body = {
      name: form.get("name"),
      action,
      params: parameters(form, params),
      timezone: form.get("timezone"),
      ttl_seconds: Number(form.get("ttl_seconds")),
      filter,
      // The API requires seconds, which the field leaves out when they are zero.
      ...(once ? { at: form.get("at").padEnd("2026-12-24T18:00:00".length, ":00") } : { cron: form.get("cron") }),
    };
    if (repeat && form.get("until_answered")) body.delivery = "until_answered";
    await call("POST", "/v1/schedules", { body });
    onDone();
  };
  const choose = (event) => {
    setAction(event.target.value);
    setVariant("");
  };
  return html`
    <${Form} submit="Create the schedule" disabled=${!ready} onSubmit=${submit}>
      <${Field} label="Name" name="name" required maxlength="63" pattern="[A-Za-z0-9][A-Za-z0-9._\\-]*"
        hint="Letters, digits, dot, underscore and hyphen." />
      <${Field} label="Command" name="action" required hint=${about} onChange=${choose}>
        ${offered.map(([name]) => html`<option value=${name} selected=${name === action}>${name}</option>`)}
      <//>
      <${Parameters} action=${action} params=${params} variant=${variant} onVariant=${setVariant} />
      <${Field} label="Runs" name="runs" required onChange=${(event) => setOnce(event.target.value === "once")}>
        <option value="cron" selected=${!once}>Repeatedly</option>
        <option value="once" selected=${once}>Once</option>
      <//>
      ${once
        ? html`<${Field} key="at" label="At" name="at" type="datetime-local" required hint="In the time zone below." />`
        : html`
          <${Field} key="cron" label="Cron" name="cron" required maxlength="100"
            hint="Minute, hour, day, month, weekday: 0 3 * * * is every night at 3:00." />
        `}
      <${Field} label="Time zone" name="timezone" required maxlength="64" defaultValue=${here} hint="Such as Europe/Berlin." />
      ${fields}
      <${Field} label="Expires after (seconds)" name="ttl_seconds" type="number" required min="1" max="86400" defaultValue="600" />
      <${Repeat} repeat=${repeat} />
    <//>
  `;
}

export function Schedule({ id }) {
  const poll = usePoll(`schedule ${id}`, (signal) => call("GET", address(id), { signal }));
  const [asking, setAsking] = useState(null);
  const key = useRef(crypto.randomUUID());
  const schedule = poll.data;
  const act = (method, path, options) => async () => {
    await call(method, `${address(id)}${path}`, options);
    key.current = crypto.randomUUID();
    setAsking(null);
    if (method === "DELETE") go("/schedules", { replace: true });
    else poll.refresh();
  };
  const actions = schedule && html`
    <button type="button" onClick=${() => setAsking("run")}>Run now</button>
    <button type="button" onClick=${() => setAsking("switch")}>${schedule.enabled ? "Disable" : "Enable"}</button>
    <button type="button" class="danger" onClick=${() => setAsking("delete")}>Delete</button>
  `;
  const asked = schedule && {
    run: ["Run the schedule now", "Its next run is not affected.", act("POST", "/run", { key: key.current })],
    switch: [
      schedule.enabled ? "Disable the schedule" : "Enable the schedule",
      schedule.enabled ? "It does not run until it is enabled again." : "Missed runs are not made up.",
      act("PATCH", "", { body: { enabled: !schedule.enabled } }),
    ],
    delete: ["Delete the schedule", "Commands that it has sent are kept.", act("DELETE", "")],
  }[asking];
  return html`
    <${Page} title=${id} poll=${poll} actions=${actions} back=${{ to: "/schedules", label: "← Schedules" }}>
      ${schedule && html`
        <${Section} title="Schedule">
          <${Facts} of=${[
            ["Command", schedule.action],
            ...Object.entries(schedule.params).map(([name, value]) => [name.replaceAll("_", " "), String(value)]),
            ["When", timing(schedule)],
            ["Devices", described(schedule.filter)],
            ["Delivery", schedule.delivery === "until_answered" ? "repeated until the device answers" : "at most once"],
            ["Made", `${instant(schedule.created_at)} by ${who(schedule.created_by)}`],
          ]} />
        <//>
        <${Section} title="Next runs, in ${here}">
          ${schedule.next_runs.length
            ? html`<ol>${schedule.next_runs.map((at) => html`<li><time datetime=${at}>${instant(at)}</time></li>`)}</ol>`
            : html`<p class="empty">${schedule.enabled ? "It will not run again." : "It is disabled."}</p>`}
        <//>
        <${Runs} name=${id} />
        <${LatestEvents} object=${`schedule:${id}`} />
      `}
      ${asked && html`
        <${Dialog} title=${asked[0]} onClose=${() => setAsking(null)}>
          <p>${asked[1]}</p>
          <${Form} submit=${asked[0]} danger=${asking === "delete"} onSubmit=${asked[2]} />
        <//>
      `}
    <//>
  `;
}

const RUN_COLUMNS = [
  { key: "at", label: "Scheduled for", head: true, cell: (run) => instant(run.scheduled_for) },
  { key: "status", label: "Status", cell: (run) => html`<${Badge} name=${RUNS[run.status]} label=${run.status} />` },
  {
    key: "command",
    label: "Command",
    cell: (run) =>
      run.request_id
        ? html`<a href="/commands/${encodeURIComponent(run.request_id)}">${count(total(run.states), "device")}</a>`
        : "–",
  },
];
const total = (states) => Object.values(states).reduce((sum, n) => sum + n, 0);

function Runs({ name }) {
  const { data, error } = usePoll(`runs of ${name}`, (signal) => call("GET", `${address(name)}/runs?limit=50`, { signal }));
  const latest = data?.items[0]?.request_id;
  return html`
    <${Section} title="Runs">
      ${error && html`<${Notice} problem=${error} />`}
      ${latest && html`<${CommandState} id=${latest} />`}
      ${data && html`
        <${Table} caption="Runs" columns=${RUN_COLUMNS} rows=${data.items} id=${(run) => run.scheduled_for} empty="The schedule has not run yet." />
      `}
    <//>
  `;
}
