// Alert rules: conditions, the devices that they apply to, and where notifications are sent.

import { html, useState } from "/assets/vendor/preact-htm.module.js";
import { call } from "/assets/api.js";
import { ALERT_TABS, CONDITIONS, conditionLabel, conditionOptions, SEVERITIES, SEVERITY_TONES, withUnitOf } from "/assets/conditions.js";
import { duration, NONE } from "/assets/format.js";
import { Older, useList } from "/assets/lists.js";
import { described, useFilter } from "/assets/selector.js";
import { Table } from "/assets/table.js";
import { Badge, Check, Dialog, Field, Form, Page, Tabs } from "/assets/ui.js";

const address = (name) => `/v1/alert-rules/${encodeURIComponent(name)}`;
const here = Intl.DateTimeFormat().resolvedOptions().timeZone;

const threshold = (rule) => {
  if (!CONDITIONS[rule.condition]?.unit) return NONE;
  return rule.threshold === null ? "default" : withUnitOf(rule.condition, rule.threshold);
};
const devices = (rule) => (rule.filter ? described(rule.filter) : "every device");
const told = (rule) => rule.routes.join(", ") || "the alarm topic";
const quiet = ({ quiet_hours: hours }) => hours && `quiet ${hours.from}–${hours.to} ${hours.timezone}`;

const columns = (onAsk) => [
  {
    key: "name",
    label: "Rule",
    head: true,
    cell: (rule) => html`${rule.name} ${!rule.enabled && html`<${Badge} name="off" label="disabled" />`}`,
  },
  {
    key: "condition",
    label: "Condition",
    cell: (rule) => html`
      <${Badge} name=${SEVERITY_TONES[rule.severity]} label=${conditionLabel(rule.condition)} />
      <div class="slim muted">${devices(rule)}</div>
    `,
  },
  { key: "severity", label: "Severity", kind: "wide", cell: (rule) => rule.severity },
  { key: "devices", label: "Devices", kind: "wide", cell: devices },
  {
    key: "threshold",
    label: "Threshold",
    kind: "wide",
    cell: (rule) => html`${threshold(rule)}${rule.for_seconds > 0 && ` for ${duration(rule.for_seconds)}`}`,
  },
  {
    key: "told",
    label: "Told to",
    kind: "wide",
    cell: (rule) => html`${told(rule)}${rule.quiet_hours && html`<div class="muted">${quiet(rule)}</div>`}`,
  },
  { key: "priority", label: "Priority", kind: "number wide", cell: (rule) => rule.priority },
  {
    key: "actions",
    label: "Actions",
    cell: (rule) => html`
      <div class="row tight">
        ${[
          ["edit", "Edit", ""],
          ["turn", rule.enabled ? "Disable" : "Enable", ""],
          ["remove", "Delete", "danger"],
        ].map(([what, label, tone]) => html`
          <button type="button" class="small ${tone}" aria-label="${label} ${rule.name}" onClick=${() => onAsk({ [what]: rule })}>${label}</button>
        `)}
      </div>
    `,
  },
];

export function Rules({ query }) {
  const list = useList("/v1/alert-rules");
  const [asked, setAsked] = useState({});
  const close = () => setAsked({});
  const done = () => {
    close();
    list.refresh();
  };
  const only = query.get("rule");
  const rows = list.data?.items.filter((rule) => !only || rule.name === only) ?? [];
  const actions = html`<button type="button" class="primary" onClick=${() => setAsked({ edit: {} })}>New rule</button>`;
  const common = { onDone: done, onClose: close };
  return html`
    <${Page} title="Alert rules" poll=${list} actions=${actions}>
      <${Tabs} label="Alerts, rules and mutes" tabs=${ALERT_TABS} />
      <p class="muted lead">
        One rule applies per device and condition: the one with the lowest priority, then one for some devices before one
        for all, then the first by name.
        ${only && html` Shown is one rule. <a href="/alerts/rules">Show all</a>`}
      </p>
      ${list.data && html`
        <${Table} caption="Alert rules" columns=${columns(setAsked)} rows=${rows} id=${(rule) => rule.name}
          empty=${only ? "There is no rule with this name any more." : "There are no rules, so no alerts are opened."} />
        <${Older} list=${list} />
      `}
      ${asked.edit && html`<${Edit} rule=${asked.edit} ...${common} />`}
      ${asked.turn && html`<${Turn} rule=${asked.turn} ...${common} />`}
      ${asked.remove && html`<${Remove} rule=${asked.remove} ...${common} />`}
    <//>
  `;
}

/** The values in the form, except for name and condition, which cannot be changed. */
function written(form, filter, unit) {
  const [from, to] = [form.get("quiet_from"), form.get("quiet_to")];
  return {
    filter: filter.all ? null : filter,
    threshold: unit && form.get("threshold") !== "" ? Number(form.get("threshold")) : null,
    for_seconds: Number(form.get("for_seconds")),
    severity: form.get("severity"),
    routes: form
      .get("routes")
      .split(",")
      .map((name) => name.trim())
      .filter(Boolean),
    priority: Number(form.get("priority")),
    quiet_hours: from || to ? { timezone: form.get("quiet_timezone"), from, to } : null,
    enabled: form.get("enabled") === "on",
  };
}

function Edit({ rule, onDone, onClose }) {
  const made = Boolean(rule.name);
  const [condition, setCondition] = useState(rule.condition ?? "silent");
  // Quiet hours need both a start and an end.
  const [hours, setHours] = useState({ from: rule.quiet_hours?.from ?? "", to: rule.quiet_hours?.to ?? "" });
  const both = Boolean(hours.from || hours.to);
  const end = (name) => ({
    name: `quiet_${name}`,
    type: "time",
    required: both,
    defaultValue: rule.quiet_hours?.[name] ?? "",
    onInput: (event) => setHours({ ...hours, [name]: event.target.value }),
  });
  const { filter, fields, ready } = useFilter(rule.filter);
  const { unit, least, most } = CONDITIONS[condition] ?? {};
  const submit = async (form) => {
    const body = written(form, filter, unit);
    if (made) await call("PATCH", address(rule.name), { body });
    else await call("POST", "/v1/alert-rules", { body: { ...body, name: form.get("name"), condition } });
    onDone();
  };
  return html`
    <${Dialog} title=${made ? `Edit ${rule.name}` : "New rule"} onClose=${onClose}>
      <${Form} submit="Save the rule" disabled=${!ready} onSubmit=${submit}>
        ${made
          ? html`<p>Condition: <strong>${conditionLabel(condition)}</strong></p>`
          : html`
            <${Field} label="Name" name="name" required maxlength="63" pattern="[A-Za-z0-9][A-Za-z0-9._\\-]*"
              hint="Letters, digits, dot, underscore and hyphen." />
            <${Field} label="Condition" name="condition" required onChange=${(event) => setCondition(event.target.value)}>
              ${conditionOptions(condition)}
            <//>
          `}
        ${unit && html`
          <${Field} key=${condition} label="Threshold (${unit})" name="threshold" type="number" step="any" min=${least} max=${most}
            defaultValue=${rule.threshold ?? ""} hint="Empty: the default of this deployment." />
        `}
        <${Field} label="Must last (seconds)" name="for_seconds" type="number" required min="0" max="604800"
          defaultValue=${rule.for_seconds ?? 0} hint="How long the condition must last before the alert opens." />
        <${Field} label="Severity" name="severity" required>
          ${SEVERITIES.map((name) => html`<option value=${name} selected=${name === (rule.severity ?? "warning")}>${name}</option>`)}
        <//>
        ${fields}
        <${Field} label="Routes" name="routes" maxlength="640" defaultValue=${(rule.routes ?? []).join(", ")}
          hint="Names of notification routes, separated by commas. Empty: only the alarm topic." />
        <${Field} label="Priority" name="priority" type="number" required min="0" max="10000" defaultValue=${rule.priority ?? 100}
          hint="Of a device's rules for one condition, the one with the lowest number applies." />
        <fieldset>
          <legend>Quiet hours <span class="muted">(optional)</span></legend>
          <div class="row">
            <${Field} label="From" ...${end("from")} />
            <${Field} label="To" ...${end("to")} />
          </div>
          <${Field} label="Time zone" name="quiet_timezone" maxlength="64" defaultValue=${rule.quiet_hours?.timezone ?? here}
            hint="Notifications are held back, and sent afterwards if the alert is still open." />
        </fieldset>
        <${Check} name="enabled" label="Enabled" defaultChecked=${rule.enabled ?? true} />
      <//>
    <//>
  `;
}

function Turn({ rule, onDone, onClose }) {
  const what = rule.enabled ? "Disable" : "Enable";
  return html`
    <${Dialog} title="${what} ${rule.name}" onClose=${onClose}>
      <p>
        ${rule.enabled
          ? "Its open alerts recover, unless another rule covers their devices."
          : "It applies again from the next evaluation on."}
      </p>
      <${Form} submit=${what} onCancel=${onClose} onSubmit=${async () => {
        await call("PATCH", address(rule.name), { body: { enabled: !rule.enabled } });
        onDone();
      }} />
    <//>
  `;
}

const Remove = ({ rule, onDone, onClose }) => html`
  <${Dialog} title="Delete the rule ${rule.name}" onClose=${onClose}>
    <p>Its open alerts recover, unless another rule covers their devices.</p>
    <${Form} submit="Delete" danger onCancel=${onClose} onSubmit=${async () => {
      await call("DELETE", address(rule.name));
      onDone();
    }} />
  <//>
`;
