// Installed apps: a page with a bar per version, and the apps of one device.

import { html } from "/assets/vendor/preact-htm.module.js";
import { call, pages } from "/assets/api.js";
import { count, NONE } from "/assets/format.js";
import { usePoll } from "/assets/poll.js";
import { Table } from "/assets/table.js";
import { Badge, Empty, Page, Section, When } from "/assets/ui.js";

export function Apps() {
  const poll = usePoll("apps", everyApp);
  const apps = poll.data;
  return html`
    <${Page} title="Apps" poll=${poll}>
      ${apps && !apps.length && html`<${Empty}>No device has reported an app yet.<//>`}
      ${apps?.map((app) => html`
        <${Section} key=${app.package} title=${app.package} actions=${count(app.device_count, "device")}>
          <ul class="bars">
            ${app.versions.map((version) => html`<${Version} version=${version} of=${app.device_count} />`)}
          </ul>
        <//>
      `)}
    <//>
  `;
}

async function everyApp(signal) {
  const apps = [];
  for await (const page of pages("/v1/apps", {}, signal)) apps.push(...page);
  return apps;
}

const named = ({ version_name, version_code }) =>
  [version_name, version_code === null ? null : `(${version_code})`].filter(Boolean).join(" ") || "unknown version";

const Version = ({ version, of }) => html`
  <li>
    <span>${named(version)}</span>
    <meter min="0" max=${of} value=${version.device_count} aria-label=${`${named(version)}: share of devices`}></meter>
    <span>${count(version.device_count, "device")}</span>
  </li>
`;

const COLUMNS = [
  { key: "package", label: "Package", head: true, cell: (app) => app.package },
  { key: "version", label: "Version", cell: (app) => app.version_name ?? NONE },
  { key: "code", label: "Code", kind: "number", cell: (app) => app.version_code ?? NONE },
  {
    key: "installed",
    label: "Installed",
    cell: (app) =>
      app.installed ? "yes" : app.removed_at ? html`removed <${When} at=${app.removed_at} />` : html`<${Badge} name="over" label="no" />`,
  },
];

export function DeviceApps({ id }) {
  const { data } = usePoll(`apps of ${id}`, (signal) =>
    call("GET", `/v1/devices/${encodeURIComponent(id)}/apps?limit=500`, { signal }),
  );
  return html`
    <${Section} title="Apps" actions=${data && count(data.items.length, "app")}>
      ${data && html`
        <${Table} caption="Apps by package" columns=${COLUMNS} rows=${data.items} id=${(app) => app.package}
          empty="The device has reported no apps." />
      `}
    <//>
  `;
}
