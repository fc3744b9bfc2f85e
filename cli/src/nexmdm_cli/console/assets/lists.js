// Paginated lists: the newest items are refreshed regularly, older pages are loaded on request.

import { html, useState } from "/assets/vendor/preact-htm.module.js";
import { call } from "/assets/api.js";
import { usePoll } from "/assets/poll.js";

const MOST_PER_PAGE = 500;

/**
 * The newest items of a list, live. query: {name: value}; empty values are left out.
 * Returns the poll of {items, next_cursor}, with `older`, which loads the next page if there is one.
 */
export function useList(path, query = {}, { first = 100, more = 200 } = {}) {
  const [wanted, setWanted] = useState(first);
  const parameters = new URLSearchParams(Object.entries(query).filter(([, value]) => value != null && value !== ""));
  const poll = usePoll(`${path}?${parameters}&${wanted}`, (signal) => newest(path, parameters, wanted, signal));
  return { ...poll, older: poll.data?.next_cursor && (() => setWanted(wanted + more)) };
}

export const Older = ({ list }) => list.older && html`
  <div class="row"><button type="button" onClick=${list.older}>Older ones</button></div>
`;

async function newest(path, parameters, wanted, signal) {
  let page = { items: [], next_cursor: null };
  do {
    const query = new URLSearchParams(parameters);
    query.set("limit", Math.min(MOST_PER_PAGE, wanted - page.items.length));
    if (page.next_cursor) query.set("cursor", page.next_cursor);
    const next = await call("GET", `${path}?${query}`, { signal });
    page = { items: [...page.items, ...next.items], next_cursor: next.next_cursor };
  } while (page.next_cursor && page.items.length < wanted);
  return page;
}
