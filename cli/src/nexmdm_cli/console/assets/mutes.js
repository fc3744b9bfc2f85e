// Mutes: alerts of some devices open and recover without notifications until a given time.

import { html, useState } from "/assets/vendor/preact-htm.module.js";
import { call } from "/assets/api.js";
import { ALERT_TABS, conditionLabel, conditionOptions } from "/assets/conditions.js";
import { fromLocal, instant, localInput, until, who } from "/assets/format.js";
import { Older, useList } from "/assets/lists.js";
import { described, useFilter } from "/assets/selector.js";
import { Table } from "/assets/table.js";
import { Dialog, Field, Form, Page, Tabs } from "/assets/ui.js";

const here = Intl.DateTimeFormat().resolvedOptions().timeZone;
const HOUR = 3_600_000;

const muted = (mute) => (mute.condition ? conditionLabel(mute.condition) : "every condition");

const columns = (onEnd) => [
  {
    key: "devices",
    label: "Devices",
    head: true,
    cell: (mute) => html`${described(mute.filter)}<div class="slim muted">${muted(mute)}</div>`,
  },
  { key: "condition", label: "Condition", kind: "wide", cell: muted },
  {
    key: "until",
    label: "Until",
    cell: (mute) => html`<time datetime=${mute.until} title=${instant(mute.until)}>${until(mute.until)}</time>`,
  },
  { key: "reason", label: "Reason", cell: (mute) => mute.reason },
  {
    key: "by",
    label: "Made",
    kind: "wide",
    cell: (mute) => html`${instant(mute.created_at)} <span class="muted">by ${who(mute.created_by)}</span>`,
  },
  {
    key: "actions",
    label: "Actions",
    cell: (mute) => html`
      <button type="button" class="danger small" aria-label="End the mute: ${mute.reason}" onClick=${() => onEnd(mute)}>End</button>
    `,
  },
];

export function Mutes() {
  const list = useList("/v1/mutes");
  const [asked, setAsked] = useState({});
  const close = () => setAsked({});
  const done = () => {
    close();
    list.refresh();
  };
  const actions = html`<button type="button" class="primary" onClick=${() => setAsked({ create: true })}>New mute</button>`;
  return html`
    <${Page} title="Mutes" poll=${list} actions=${actions}>
      <${Tabs} label="Alerts, rules and mutes" tabs=${ALERT_TABS} />
      ${list.data && html`
        <${Table} caption="Active mutes, newest first" columns=${columns((end) => setAsked({ end }))} rows=${list.data.items}
          id=${(mute) => mute.mute_id}
          empty="There are no mutes. A mute suppresses the notifications of some devices for a time, such as during construction work." />
        <${Older} list=${list} />
      `}
      ${asked.create && html`<${Create} onDone=${done} onClose=${close} />`}
      ${asked.end && html`<${End} mute=${asked.end} onDone=${done} onClose=${close} />`}
    <//>
  `;
}

function Create({ onDone, onClose }) {
  const { filter, fields, ready } = useFilter();
  const [inAnHour] = useState(() => localInput(new Date(Date.now() + HOUR)));
  const submit = async (form) => {
    const body = {
      filter,
      condition: form.get("condition") || null,
      until: fromLocal(form.get("until")),
      reason: form.get("reason"),
    };
    await call("POST", "/v1/mutes", { body });
    onDone();
  };
  return html`
    <${Dialog} title="New mute" onClose=${onClose}>
      <p>Alerts of these devices open and recover without notifications. They are still listed.</p>
      <${Form} submit="Mute" disabled=${!ready} onSubmit=${submit}>
        <${Field} label="Reason" name="reason" required maxlength="500" />
        <${Field} label="Until" name="until" type="datetime-local" required defaultValue=${inAnHour}
          hint="In the browser's time zone, ${here}." />
        <${Field} label="Condition" name="condition">${conditionOptions(null, "Every condition")}<//>
        ${fields}
      <//>
    <//>
  `;
}

const End = ({ mute, onDone, onClose }) => html`
  <${Dialog} title="End the mute" onClose=${onClose}>
    <p><q>${mute.reason}</q>, for ${described(mute.filter)}. What changes from now on is told again.</p>
    <${Form} submit="End the mute" danger onCancel=${onClose} onSubmit=${async () => {
      await call("DELETE", `/v1/mutes/${mute.mute_id}`);
      onDone();
    }} />
  <//>
`;
