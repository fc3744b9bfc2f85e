// The API identifies devices by id; people know them by alias.

import { html } from "/assets/vendor/preact-htm.module.js";
import { call, pages } from "/assets/api.js";
import { known, usePoll } from "/assets/poll.js";

/** The devices of a filter, as far as they are loaded: {items, complete}. key: the key of the poll. */
export async function everyDevice(signal, show, filter = {}, key = "devices") {
  const items = [];
  for await (const page of pages("/v1/devices", filter, signal)) {
    page.forEach(learn);
    items.push(...page);
    // A refresh replaces the shown devices only when it is complete.
    if (!known(key)) show({ items: items.slice(), complete: false });
  }
  return { items, complete: true };
}

const aliases = new Map();

/** Remember a device's alias. Called wherever a device is loaded, because it may have been renamed. */
export function learn(device) {
  aliases.set(device.device_id, device.alias);
  return device;
}

/** A device's name as a link to it: as it was last loaded, or else requested once. */
export function DeviceName({ id }) {
  const { data } = usePoll(
    `alias ${id}`,
    (signal) => aliasOf(id, signal),
    () => null,
  );
  return html`<a class="name" href="/devices/${encodeURIComponent(id)}">${data ?? html`<code>${id.slice(0, 8)}</code>`}</a>`;
}

function aliasOf(id, signal) {
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
