// Groups: named filters, with their current number of devices.

import { html, useState } from "/assets/vendor/preact-htm.module.js";
import { call } from "/assets/api.js";
import { NONE, number, who } from "/assets/format.js";
import { described, useFilter, useGroups } from "/assets/selector.js";
import { Table } from "/assets/table.js";
import { Dialog, Field, Form, Page, When } from "/assets/ui.js";

const address = (name) => `/v1/groups/${encodeURIComponent(name)}`;

const columns = (onAsk) => [
  {
    key: "name",
    label: "Group",
    head: true,
    cell: (group) => html`<a class="name" href="/devices?group=${encodeURIComponent(group.name)}">${group.name}</a>`,
  },
  { key: "devices", label: "Devices", kind: "number", cell: (group) => number(group.device_count) },
  { key: "filter", label: "Filter", cell: (group) => described(group.filter) },
  { key: "watched", label: "Watched app", kind: "wide", cell: (group) => group.monitored_package ?? NONE },
  {
    key: "changed",
    label: "Changed",
    kind: "wide",
    cell: (group) => html`<${When} at=${group.updated_at} /> <span class="muted">by ${who(group.updated_by)}</span>`,
  },
  {
    key: "actions",
    label: "Actions",
    cell: (group) => html`
      <button type="button" class="small" aria-label="Edit ${group.name}" onClick=${() => onAsk({ edit: group })}>Edit</button>
      ${" "}
      <button type="button" class="danger small" aria-label="Delete ${group.name}"
        onClick=${() => onAsk({ remove: group })}>Delete</button>
    `,
  },
];

export function Groups() {
  const poll = useGroups();
  const [asked, setAsked] = useState({});
  const close = () => {
    setAsked({});
    poll.refresh();
  };
  const actions = html`<button type="button" class="primary" onClick=${() => setAsked({ edit: {} })}>New group</button>`;
  return html`
    <${Page} title="Groups" poll=${poll} actions=${actions}>
      ${poll.data && html`
        <${Table} caption="Groups" columns=${columns(setAsked)} rows=${poll.data} id=${(group) => group.name}
          empty="There are no groups yet. A group is a named filter, such as all tills in Berlin." />
      `}
      ${asked.edit && html`<${Edit} group=${asked.edit} onClose=${close} />`}
      ${asked.remove && html`<${Remove} group=${asked.remove} onClose=${close} />`}
    <//>
  `;
}

function Edit({ group, onClose }) {
  const { filter, fields, ready } = useFilter(group.filter, { every: false, group: false });
  return html`
    <${Dialog} title=${group.name ? `Edit ${group.name}` : "New group"} onClose=${onClose}>
      <${Form} submit="Save the group" disabled=${!ready} onSubmit=${async (form) => {
        await call("PUT", address(group.name ?? form.get("name")), {
          body: { filter, monitored_package: form.get("monitored_package").trim() || null },
        });
        onClose();
      }}>
        ${!group.name && html`
          <${Field} label="Name" name="name" required maxlength="63" pattern="[A-Za-z0-9][A-Za-z0-9._\\-]*"
            hint="Letters, digits, dot, underscore and hyphen." />
        `}
        ${fields}
        <${Field} label="Watched app" name="monitored_package" defaultValue=${group.monitored_package ?? ""} maxlength="255"
          hint="A package name, for devices that do not set their own monitored app. Leave it empty to set none." />
      <//>
    <//>
  `;
}

const Remove = ({ group, onClose }) => html`
  <${Dialog} title="Delete the group ${group.name}" onClose=${onClose}>
    <p>Its devices are not changed. A group that is in use cannot be deleted.</p>
    <${Form} submit="Delete" danger onCancel=${onClose} onSubmit=${async () => {
      await call("DELETE", address(group.name));
      onClose();
    }} />
  <//>
`;
