// Sending a command to one device or to many, and following it until it settles.

import { html, useRef, useState } from "/assets/vendor/preact-htm.module.js";
import { call } from "/assets/api.js";
import { CommandState } from "/assets/commands.js";
import { count } from "/assets/format.js";
import { usePoll } from "/assets/poll.js";
import { PreviewLine, usePreview } from "/assets/selector.js";
import { Dialog, Field, Form, Notice } from "/assets/ui.js";

const knownActions = (signal) => fetch("/assets/actions.json", { signal }).then((answer) => answer.json());

/** The available actions: {action: {about, answered, params, disruptive, repeat}}; undefined until loaded. */
export const useActions = () => usePoll("actions", knownActions, () => null).data;

/** devices: [{device_id, alias}]; or filter, with `about` as its description. */
export function Send({ devices, filter, about, onClose }) {
  const actions = useActions();
  const [sent, setSent] = useState(null);
  const title = sent
    ? `${sent.action} was accepted`
    : `Send to ${filter ? about : devices.length === 1 ? devices[0].alias : count(devices.length, "device")}`;
  return html`
    <${Dialog} title=${title} onClose=${onClose}>
      ${
        sent
          ? html`
            <${CommandState} id=${sent.request_id} />
            <div class="row end">
              <a class="button" href="/commands/${encodeURIComponent(sent.request_id)}">Open the command</a>
            </div>
          `
          : actions && html`<${Compose} actions=${actions} devices=${devices} filter=${filter} onSent=${setSent} />`}
    <//>
  `;
}

function Compose({ actions, devices, filter, onSent }) {
  const [action, setAction] = useState("ping");
  const [variant, setVariant] = useState("");
  // One key per request, so that a second attempt after a lost response does not create a second command.
  const asked = useRef({});
  const [again, setAgain] = useState(0);
  const { preview, problem } = usePreview(filter && { filter }, again);
  const { about, answered, params, disruptive, repeat } = actions[action];
  const submit = async (form) => {
    const body = { action, params: parameters(form, params), ttl_seconds: Number(form.get("ttl_seconds")) };
    if (repeat && form.get("until_answered")) body.delivery = "until_answered";
    const [path, target] = filter ? ["/v1/commands", { filter }] : targetOf(devices);
    const what = JSON.stringify([path, target, body]);
    if (asked.current.what !== what) asked.current = { what, key: crypto.randomUUID() };
    // It is sent to the devices that were shown, or to none.
    const expected = filter ? { expect_target_hash: preview.target_hash } : {};
    try {
      const sent = await call("POST", path, { body: { ...body, ...target, ...expected }, key: asked.current.key });
      onSent({ action, ...sent });
    } catch (refusal) {
      if (refusal.code === "targets_changed") setAgain(again + 1);
      throw refusal;
    }
  };
  const n = filter ? (preview?.device_count ?? 0) : devices.length;
  const many = !filter && n === 1 ? "" : ` to ${count(n, "device")}`;
  const choose = (event) => {
    setAction(event.target.value);
    setVariant("");
  };
  return html`
    ${filter && (problem ? html`<${Notice} problem=${problem} />` : html`<${PreviewLine} preview=${preview} />`)}
    <${Form} submit="Send ${action}${many}" danger=${disruptive} disabled=${!n} onSubmit=${submit}>
      <${Field} label="Action" name="action" required hint=${`${about} ${ANSWERED[answered]}`} onChange=${choose}>
        ${Object.keys(actions).map((name) => html`<option value=${name} selected=${name === action}>${name}</option>`)}
      <//>
      <${Parameters} action=${action} params=${params} variant=${variant} onVariant=${setVariant} />
      <${Field} label="Expires after (seconds)" name="ttl_seconds" type="number" required min="1" max="86400" defaultValue="600" />
      <${Repeat} repeat=${repeat} />
    <//>
  `;
}

export const Repeat = ({ repeat }) => repeat && html`
  <label class="check">
    <input type="checkbox" name="until_answered" value="yes" /> Send again until the device answers
    <span class="muted">Running it twice ${repeat === "harmless" ? "does no harm" : repeat}.</span>
  </label>
`;

/** The fields of an action's parameters. */
export const Parameters = ({ action, params, variant, onVariant }) =>
  Object.entries(params).map(([name, spec]) => html`
    <${Parameter} key=${`${action}.${name}`} name=${name} spec=${spec} variant=${variant} onVariant=${onVariant} />
  `);

const ANSWERED = {
  at_once: "The agent answers at once.",
  with_heartbeat: "The agent answers with its next heartbeat.",
  never: "The agent does not report the result.",
};

const targetOf = (devices) =>
  devices.length === 1
    ? [`/v1/devices/${encodeURIComponent(devices[0].device_id)}/commands`, {}]
    : ["/v1/commands", { device_ids: devices.map((device) => device.device_id) }];

function Parameter({ name, spec, variant, onVariant }) {
  const variants = [...(spec.needed ?? []), ...(spec.taken ?? [])];
  if (variants.length && !variants.includes(variant)) return null;
  const required = spec.required || spec.needed?.includes(variant);
  const common = { label: spec.label, hint: spec.hint, name, required };
  if (spec.enum) {
    return html`
      <${Field} ...${common} onChange=${(event) => onVariant(event.target.value)}>
        <option value="">choose …</option>
        ${spec.enum.map((value) => html`<option value=${value} selected=${value === variant}>${value}</option>`)}
      <//>
    `;
  }
  if (spec.type === "boolean") {
    return html`
      <${Field} ...${common}>
        <option value="">choose …</option>
        <option value="true">on</option>
        <option value="false">off</option>
      <//>
    `;
  }
  if (spec.type === "integer") {
    return html`<${Field} ...${common} type="number" min=${spec.minimum} max=${spec.maximum} defaultValue=${spec.default} />`;
  }
  const type = spec.type === "array" ? "textarea" : spec.secret ? "password" : "text";
  const hidden = spec.secret ? { autocomplete: "new-password" } : {};
  return html`
    <${Field} ...${common} ...${hidden} type=${type} minlength=${spec.minLength} maxlength=${spec.maxLength}
      pattern=${spec.pattern && `${spec.pattern}.*`} />
  `;
}

/** The values of the parameters' fields. */
export function parameters(form, params) {
  const given = {};
  for (const [name, { type }] of Object.entries(params)) {
    const value = form.get(name);
    if (value === null || value === "") continue;
    if (type === "integer") given[name] = Number(value);
    else if (type === "boolean") given[name] = value === "true";
    else if (type === "array")
      given[name] = value
        .split("\n")
        .map((line) => line.trim())
        .filter(Boolean);
    else given[name] = value;
  }
  return given;
}
