// Devices are known by their ids; people know them by their aliases.

import { html } from "/assets/vendor/preact-htm.module.js";
import { call, pages } from "/assets/api.js";
import { known, usePoll } from "/assets/poll.js";

/** Every device that the filter selects, as far as it has come: {items, complete}. key: under which it is polled. */
export async function everyDevice(signal, show, filter = {}, key = "devices") {
  const items = [];
  for await (const page of pages("/v1/devices", filter, signal)) {
    items.push(...page);
    // A refresh takes the place of what is shown only as a whole.
    if (!known(key)) show({ items: items.slice(), complete: false });
  }
  return { items, complete: true };
}

const aliases = new Map();

/** A device's name as a link to it: from the list when it was loaded, else asked for once. */
export function DeviceName({ id }) {
  const { data } = usePoll(
    `alias ${id}`,
    (signal) => aliasOf(id, signal),
    () => null,
  );
  return html`<a class="name" href="/devices/${encodeURIComponent(id)}">${data ?? html`<code>${id.slice(0, 8)}</code>`}</a>`;
}

function aliasOf(id, signal) {
  const listed = known("devices")?.items.find((device) => device.device_id === id);
  if (listed) return listed.alias;
  if (!aliases.has(id)) {
    const asked = call("GET", `/v1/devices/${encodeURIComponent(id)}`).then(
      (device) => device.alias,
      (problem) => {
        if (problem.status === 404) return "a deleted device";
        aliases.delete(id);
        return null;
      },
    );
    aliases.set(id, asked);
  }
  return aliases.get(id);
}
