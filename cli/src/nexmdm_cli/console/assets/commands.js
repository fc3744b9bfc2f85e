// Commands: their states and results, and the actions that remain possible.

import { html, useRef, useState } from "/assets/vendor/preact-htm.module.js";
import { call } from "/assets/api.js";
import { count, instant, number, who } from "/assets/format.js";
import { Older, useList } from "/assets/lists.js";
import { DeviceName } from "/assets/names.js";
import { usePoll } from "/assets/poll.js";
import { setQuery } from "/assets/router.js";
import { Table } from "/assets/table.js";
import { Badge, Dialog, Facts, Field, Form, Notice, Page, Section, Shares, When } from "/assets/ui.js";

const STATES = ["accepted", "sending", "sent", "retry_wait", "unknown", "failed", "expired", "cancelled"];
const OPEN = ["accepted", "sending", "retry_wait"];
const TONES = { sent: "good", failed: "bad", unknown: "warn", retry_wait: "warn", accepted: "busy", sending: "busy" };
const MEANS = {
  accepted: "Waiting to be sent.",
  sending: "Being sent at this moment.",
  retry_wait: "Certainly not delivered; it is sent again automatically.",
  unknown: "It is not known whether it arrived. Check the device, then cancel or resend it.",
  failed: "It is not sent again automatically.",
  expired: "It expired before it could be sent.",
  cancelled: "Cancelled before it was sent.",
};

const address = (id) => `/v1/commands/${encodeURIComponent(id)}`;
const done = (command) => Boolean(command.completed_at);
const wentWrong = (command) => /fail|error|timeout|denied/i.test(command.result ?? "");
const meaning = (command) => {
  if (done(command)) return `The device answered${command.result ? `: ${command.result}` : ""}.`;
  if (command.state !== "sent") return MEANS[command.state];
  if (command.answered === "never") return "Sent; the agent does not report the result of this action.";
  const again = command.delivery === "until_answered" ? " It is sent again until the device answers or it expires." : "";
  return `FCM accepted it; the device has not answered yet.${again}`;
};

/** Seconds until the next refresh of a command; null when it no longer changes. */
function soon(command) {
  if (!command) return 2;
  const batch = "states" in command;
  if (batch && !OPEN.some((state) => command.states[state])) return 10;
  if (!batch && (done(command) || ["failed", "expired", "cancelled"].includes(command.state))) return null;
  if (!batch && command.state === "sent" && command.answered === "never") return 30;
  const age = (Date.now() - Date.parse(command.created_at)) / 1000;
  return age < 30 ? 1 : age < 600 ? 5 : 30;
}

const useCommand = (id) => usePoll(`command ${id}`, (signal) => call("GET", address(id), { signal }), soon);

/** The state as a badge; after the device's answer, whether the action succeeded. */
function State({ command }) {
  if (!done(command)) return html`<${Badge} name=${command.state} />`;
  return wentWrong(command)
    ? html`<${Badge} name="error" label="done: ${command.result.toLowerCase()}" />`
    : html`<${Badge} name="done" />`;
}

/** The state of a command, live. */
export function CommandState({ id }) {
  const { data, error } = useCommand(id);
  return html`${error && html`<${Notice} problem=${error} />`}<${Standing} command=${data} />`;
}

const Standing = ({ command }) => html`
  <div aria-live="polite">
    ${command && ("states" in command ? html`<${BatchState} batch=${command} />` : html`<${OneState} command=${command} />`)}
  </div>
`;

const OneState = ({ command }) => html`
  <p class="state">
    <${State} command=${command} /> ${meaning(command)}
    ${command.result_message && html`<q>${command.result_message}</q>`}
    ${command.error_msg && !done(command) && html`<span class="muted">${command.error_msg}</span>`}
  </p>
`;

const BatchState = ({ batch }) => html`
  <p class="state">${count(batch.device_count, "device")}</p>
  <${Shares} label="States" parts=${STATES.map((state) => [state, batch.states[state] ?? 0, TONES[state] ?? "off"])} />
`;

const COLUMNS = [
  {
    key: "action",
    label: "Command",
    head: true,
    cell: (command) => html`<a href="/commands/${encodeURIComponent(command.request_id)}">${command.action}</a>`,
  },
  { key: "device", label: "Device", cell: (command) => html`<${DeviceName} id=${command.device_id} />` },
  { key: "state", label: "State", cell: (command) => html`<${State} command=${command} />` },
  { key: "result", label: "Result", kind: "wide", cell: (command) => command.result ?? command.error_msg ?? "–" },
  { key: "asked", label: "Asked", cell: (command) => html`<${When} at=${command.created_at} />` },
  { key: "by", label: "By", kind: "wide", cell: (command) => who(command.created_by) },
];

export function CommandsTable({ commands, without, empty = "No command was sent within the retention period." }) {
  const columns = COLUMNS.filter(({ key }) => key !== without);
  return html`
    <${Table} caption="Commands" columns=${columns} rows=${commands} id=${(command) => command.request_id} empty=${empty} />
  `;
}

/** A list of commands, live. query: the list's filters. */
export const useCommands = (query, options) => useList("/v1/commands", query, options);

export const CommandsList = ({ list, without }) => list.data && html`
  <${CommandsTable} commands=${list.data.items} without=${without} />
  <${Older} list=${list} />
`;

export function Commands({ query }) {
  const state = query.get("state") ?? "";
  const batch = query.get("batch") ?? "";
  const list = useCommands({ state, batch });
  return html`
    <${Page} poll=${list} title=${batch ? "Commands of a batch" : "Commands"}
      back=${batch && { to: `/commands/${encodeURIComponent(batch)}`, label: "← The batch" }}>
      <form class="filters" onSubmit=${(event) => event.preventDefault()}>
        <label>
          State
          <select onChange=${(event) => setQuery({ state: event.target.value })}>
            <option value="">All states</option>
            ${STATES.map((name) => html`<option value=${name} selected=${name === state}>${name}</option>`)}
          </select>
        </label>
      </form>
      <${CommandsList} list=${list} />
    <//>
  `;
}

export function Command({ id }) {
  const poll = useCommand(id);
  const [asking, setAsking] = useState(null);
  const command = poll.data;
  const close = () => setAsking(null);
  const settle = () => {
    close();
    poll.refresh();
  };
  const actions = command && html`<${Possible} command=${command} onAsk=${setAsking} />`;
  const title = command ? (command.action ?? "Bulk command") : "Command";
  return html`
    <${Page} title=${title} poll=${poll} actions=${actions} back=${{ to: "/commands", label: "← Commands" }}>
      ${command && html`
        <${Section} title="State"><${Standing} command=${command} /><//>
        <${"states" in command ? BatchFacts : CommandFacts} command=${command} />
      `}
      ${asking === "cancel" && html`<${Cancel} command=${command} onDone=${settle} onClose=${close} />`}
      ${asking === "resend" && html`<${Resend} command=${command} onDone=${settle} onClose=${close} />`}
    <//>
  `;
}

/** The actions that the command's state allows. */
function Possible({ command, onAsk }) {
  const states = command.states ?? { [command.state]: 1 };
  const repeats = command.delivery === "until_answered" && states.sent && !done(command);
  const cancel = states.accepted || states.retry_wait || states.unknown || repeats;
  const resend = !command.states && !done(command) && ["unknown", "failed", "expired", "sent"].includes(command.state);
  return html`
    ${resend && html`<button type="button" onClick=${() => onAsk("resend")}>Resend</button>`}
    ${cancel && html`<button type="button" onClick=${() => onAsk("cancel")}>Cancel</button>`}
  `;
}

const CommandFacts = ({ command }) => html`
  <${Section} title="Command">
    <${Facts} of=${[
      ["Device", html`<${DeviceName} id=${command.device_id} />`],
      ["Request id", html`<code>${command.request_id}</code>`],
      [
        "Parameters",
        Object.keys(command.params).length ? html`<code>${JSON.stringify(command.params)}</code>` : "none",
      ],
      ["Asked", `${instant(command.created_at)} by ${who(command.created_by)}`],
      ["Expires", instant(command.expires_at)],
      ["Sends", number(command.attempts)],
      [
        "FCM",
        command.http_code
          ? `${command.fcm_status} (HTTP ${command.http_code}, ${number(Math.round(command.latency_ms))} ms)`
          : "–",
      ],
      ["Delivery", command.delivery === "until_answered" ? "repeated until the device answers" : "at most once"],
      ["Answered", command.completed_at ? instant(command.completed_at) : NOT_ANSWERED[command.answered] ?? "not yet"],
      ...(command.batch_id
        ? [["Part of", html`<a href="/commands/${encodeURIComponent(command.batch_id)}">a bulk command</a>`]]
        : []),
    ]} />
  <//>
  ${command.answer_withheld && html`<${Answer} id=${command.request_id} />`}
  <${Audit} entries=${command.audit} />
`;

const NOT_ANSWERED = {
  with_heartbeat: "with the device's next heartbeat",
  never: "the agent never answers this action",
};

/** The full command and answer, loaded on request; viewers may not see them. */
function Answer({ id }) {
  const [shown, setShown] = useState(null);
  const [problem, setProblem] = useState(null);
  const show = () => call("GET", `${address(id)}/result`).then(setShown, setProblem);
  return html`
    <${Section} title="Answer">
      ${problem && html`<${Notice} problem=${problem} />`}
      ${shown
        ? html`<p><code>${JSON.stringify(shown.params)}</code></p><pre>${shown.result_message}</pre>`
        : html`<button type="button" onClick=${show}>Show the answer</button>`}
    <//>
  `;
}

const BatchFacts = ({ command }) => html`
  <${Members} batch=${command.request_id} />
  <${Section} title="Batch">
    <${Facts} of=${[
      ["Request id", html`<code>${command.request_id}</code>`],
      ["Asked", `${instant(command.created_at)} by ${who(command.created_by)}`],
      [
        "Selected by",
        "device_ids" in command.selector ? "a list of devices" : html`<code>${JSON.stringify(command.selector)}</code>`,
      ],
    ]} />
  <//>
`;

const Members = ({ batch }) => html`
  <${Section} title="Devices" actions=${html`<a href="/commands?batch=${encodeURIComponent(batch)}">By state</a>`}>
    <${CommandsList} list=${useCommands({ batch })} />
  <//>
`;

/** The audit: who did what, when, and the reason. */
export function Audit({ entries }) {
  if (!entries?.length) return null;
  return html`
    <${Section} title="History">
      <ol class="audit">
        ${entries.map(({ event, by, at, key, ...rest }) => html`
          <li><time datetime=${at}>${instant(at)}</time> <strong>${event}</strong> by ${who(by)}
            ${Object.entries(rest)
              .filter(([, value]) => value != null)
              .map(([name, value]) => html` <span class="muted">${name}: ${String(value)}</span>`)}
          </li>
        `)}
      </ol>
    <//>
  `;
}

const Cancel = ({ command, onDone, onClose }) => html`
  <${Dialog} title="Cancel the command" onClose=${onClose}>
    <p>Messages that have not been sent are cancelled. Messages that are being sent or were delivered are not.</p>
    <${Form} submit="Cancel the command" danger onSubmit=${async () => {
      await call("POST", `${address(command.request_id)}/cancel`, { body: {} });
      onDone();
    }} />
  <//>
`;

function Resend({ command, onDone, onClose }) {
  const key = useRef(crypto.randomUUID());
  const submit = async (form) => {
    const body = { reason: form.get("reason"), ttl_seconds: Number(form.get("ttl_seconds")) };
    await call("POST", `${address(command.request_id)}/resend`, { body, key: key.current });
    onDone();
  };
  return html`
    <${Dialog} title="Resend the command" onClose=${onClose}>
      <p>The device may have received it already. The command's audit records who resent it, when, and the reason.</p>
      <${Form} submit="Resend" danger onSubmit=${submit}>
        <${Field} label="Reason" name="reason" required maxlength="500" />
        <${Field} label="Expires after (seconds)" name="ttl_seconds" type="number" required min="1" max="86400" defaultValue="600" />
      <//>
    <//>
  `;
}
