// Enrollment: tokens are created, shown once as QR codes, listed and revoked.

import { html, useEffect, useState } from "/assets/vendor/preact-htm.module.js";
import { about, call, pages } from "/assets/api.js";
import { ago, count, instant, number, until, who } from "/assets/format.js";
import { changes } from "/assets/labels.js";
import { usePoll } from "/assets/poll.js";
import { Table } from "/assets/table.js";
import { forAgent, forNewPhone } from "/assets/codes.js";
import { Badge, Dialog, Field, Form, Notice, Page, Section, When } from "/assets/ui.js";

const LOOPBACK = /^https?:\/\/(127\.|localhost|\[::1\])/;
// Google lets only approved device policy controllers install apps while a phone is provisioned by QR code.
const ALLOWLIST =
  "With a cable every agent works: nexmdm enroll create ALIAS --script DIR, or adb shell dpm" +
  " set-device-owner on a phone without accounts. Android may refuse this code: only agents on Google's DPC allowlist" +
  " are installed from it. docs/device.md says how to appeal.";
const HOURS = [
  ["1800", "30 minutes"],
  ["3600", "1 hour"],
  ["28800", "8 hours"],
  ["86400", "1 day"],
  ["604800", "7 days"],
  ["2592000", "30 days"],
];

export function Enroll() {
  const poll = usePoll("enroll-tokens", newest);
  const [making, setMaking] = useState(false);
  const [made, setMade] = useState(null);
  const [revoking, setRevoking] = useState(null);
  const close = () => {
    setMaking(false);
    setRevoking(null);
    poll.refresh();
  };
  const actions = html`<button type="button" class="primary" onClick=${() => setMaking(true)}>New tokens</button>`;
  return html`
    <${Page} title="Enrollment" poll=${poll} actions=${actions}>
      ${made && html`<${Made} tokens=${made} onClose=${() => setMade(null)} />`}
      ${poll.data && html`
        <${Table} caption="Enrollment tokens" columns=${[...COLUMNS, revokeColumn(setRevoking)]}
          rows=${poll.data} id=${(token) => token.token_id} empty="No token has been created yet." />
      `}
      ${making && html`<${New} onMade=${(tokens) => {
          setMade(tokens);
          close();
        }} onClose=${close} />`}
      ${revoking && html`<${Revoke} token=${revoking} onDone=${close} onClose=${close} />`}
    <//>
  `;
}

/** The newest five hundred tokens. */
async function newest(signal) {
  for await (const items of pages("/v1/enroll-tokens", {}, signal)) return items;
}

const COLUMNS = [
  { key: "alias", label: "Alias", head: true, cell: (token) => token.alias },
  { key: "status", label: "Status", cell: (token) => html`<${Badge} name=${token.status} />` },
  {
    key: "scope",
    label: "For",
    kind: "wide",
    cell: (token) => (token.scope === "register" ? "registering" : "downloading"),
  },
  {
    key: "uses",
    label: "Uses",
    kind: "number wide",
    cell: (token) => `${number(token.uses_consumed)} of ${number(token.uses_allowed)}`,
  },
  {
    key: "expires",
    label: "Expires",
    cell: ({ expires_at: at }) =>
      html`<time datetime=${at} title=${instant(at)}>${new Date(at) > Date.now() ? until(at) : ago(at)}</time>`,
  },
  { key: "used", label: "Last used", kind: "wide", cell: (token) => html`<${When} at=${token.last_used_at} />` },
  { key: "by", label: "Made by", kind: "wide", cell: (token) => who(token.issued_by) },
  { key: "note", label: "Note", kind: "wide", cell: (token) => token.note ?? "" },
];

const revokeColumn = (onRevoke) => ({
  key: "revoke",
  label: "Action",
  cell: (token) => token.status === "active" && html`
    <button type="button" class="danger small" aria-label="Revoke the token of ${token.alias}"
      onClick=${() => onRevoke(token)}>Revoke</button>
  `,
});

const Revoke = ({ token, onDone, onClose }) => html`
  <${Dialog} title="Revoke the token of ${token.alias}" onClose=${onClose}>
    <p>It becomes invalid with the next call. Devices that registered with it stay enrolled.</p>
    <${Form} submit="Revoke" danger onCancel=${onClose} onSubmit=${async () => {
      await call("DELETE", `/v1/enroll-tokens/${encodeURIComponent(token.token_id)}`);
      onDone();
    }} />
  <//>
`;

function New({ onMade, onClose }) {
  const submit = async (form) => {
    const aliases = form
      .get("aliases")
      .split("\n")
      .map((line) => line.trim())
      .filter(Boolean);
    const body = {
      aliases,
      scope: form.get("scope"),
      expires_in_sec: Number(form.get("expires")),
      uses_allowed: Number(form.get("uses")),
      ...(form.get("note") && { note: form.get("note") }),
      labels: changes(form.get("labels")).set,
    };
    const { items } = await call("POST", "/v1/enroll-tokens", { body });
    onMade(items);
  };
  return html`
    <${Dialog} title="New enrollment tokens" onClose=${onClose}>
      <${Form} submit="Make tokens" onSubmit=${submit}>
        <${Field} label="Aliases" name="aliases" type="textarea" required hint="One per line; each gets its own token." />
        <${Field} label="For" name="scope" required>
          <option value="register">registering a device</option>
          <option value="apk_download">setting up a factory-reset phone (downloads the agent)</option>
        <//>
        <${Field} label="Valid for" name="expires" required>
          ${HOURS.map(([seconds, words]) => html`<option value=${seconds}>${words}</option>`)}
        <//>
        <${Field} label="Uses" name="uses" type="number" required min="1" max="100000" defaultValue="1" />
        <${Field} label="Labels" name="labels" type="textarea" placeholder="site=berlin"
          hint="One per line, KEY=VALUE. Devices that register get them." />
        <${Field} label="Note" name="note" maxlength="1000" />
      <//>
    <//>
  `;
}

/** The new tokens, which cannot be shown again. */
function Made({ tokens, onClose }) {
  const { data } = usePoll("about", about, () => null);
  const [server, setServer] = useState(null);
  const address = server ?? data?.api_url ?? "";
  return html`
    <${Section} title="${count(tokens.length, "token")} made"
      actions=${html`<button type="button" onClick=${onClose}>Done</button>`}>
      <p class="notice plain" role="status">The tokens are shown only once. Scan or copy them now.</p>
      <${Field} label="URL of the API for devices" name="server" required value=${address}
        hint=${LOOPBACK.test(address) ? "A phone cannot reach this URL, which is local to this machine." : ""}
        onInput=${(event) => setServer(event.target.value)} />
      <ul class="codes">
        ${address && tokens.map((token) => html`<${Code} key=${token.token_id} token=${token} server=${address} />`)}
      </ul>
    <//>
  `;
}

function Code({ token, server }) {
  const [code, setCode] = useState({});
  useEffect(() => {
    let url;
    let wanted = true;
    const composed = token.scope === "register" ? forAgent(server, token) : forNewPhone(server, token);
    composed.then(
      ({ svg, adb }) => {
        if (!wanted) return;
        url = URL.createObjectURL(new Blob([svg], { type: "image/svg+xml" }));
        setCode({ url, adb });
      },
      (problem) => wanted && setCode({ problem }),
    );
    return () => {
      wanted = false;
      if (url) URL.revokeObjectURL(url);
    };
  }, [token, server]);
  const how =
    token.scope === "register"
      ? `Scan with the agent; ${count(token.uses_allowed, "use")}`
      : "Scan after tapping the welcome screen six times";
  return html`
    <li>
      <h3>${token.alias}</h3>
      ${code.url && html`<img src=${code.url} alt="QR code that enrolls ${token.alias}" width="240" height="240" />`}
      ${code.problem && html`<${Notice} problem=${code.problem} />`}
      <p class="muted">${how}. Expires ${until(token.expires_at)}.</p>
      ${token.scope !== "register" && html`<p class="notice plain">${ALLOWLIST}</p>`}
      <details><summary>Token${code.adb ? " and ADB command" : ""}</summary>
        <${Copied} label="token" text=${token.token} />
        ${code.adb && html`<${Copied} label="ADB command" text=${code.adb} />`}
      </details>
    </li>
  `;
}

function Copied({ label, text }) {
  const [done, setDone] = useState(false);
  const copy = async () => {
    await navigator.clipboard.writeText(text);
    setDone(true);
  };
  return html`
    <pre>${text}</pre>
    <button type="button" class="small" onClick=${copy}>${done ? "Copied" : `Copy ${label}`}</button>
  `;
}
