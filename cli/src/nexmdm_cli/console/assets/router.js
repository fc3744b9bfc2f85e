// Every view has a URL, so links are plain <a> elements and a view can be shared.

import { useEffect, useLayoutEffect, useState } from "/assets/vendor/preact-htm.module.js";

const here = () => ({ path: location.pathname, query: new URLSearchParams(location.search) });
const moved = () => dispatchEvent(new Event("moved"));

export function go(to, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", to);
  moved();
  if (!replace) scrollTo(0, 0);
}

/** Change parameters of the current URL; null removes one. */
export function setQuery(changes) {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === "") query.delete(name);
    else query.set(name, value);
  }
  go(`${location.pathname}${query.size ? `?${query}` : ""}`, { replace: true });
}

/** [text, setText] of a field for a parameter of the URL, written when typing pauses: browsers limit the changes. */
export function useTyped(name, written) {
  const [text, setText] = useState(written);
  // Layout effects, because a key that is pressed before a later effect would be lost.
  useLayoutEffect(() => setText(written), [written]);
  useLayoutEffect(() => {
    const paused = setTimeout(() => text !== written && setQuery({ [name]: text, page: null }), 300);
    return () => clearTimeout(paused);
  }, [text]);
  return [text, setText];
}

export function useAddress() {
  const [address, setAddress] = useState(here);
  useEffect(() => {
    const look = () => setAddress(here());
    const follow = (event) => {
      const link = event.target.closest?.("a[href]");
      const plain = event.button === 0 && !(event.metaKey || event.ctrlKey || event.shiftKey || event.altKey);
      if (!link || !plain || link.target || link.origin !== location.origin || event.defaultPrevented) return;
      if (link.getAttribute("href").startsWith("#")) return;
      event.preventDefault();
      go(link.href);
    };
    addEventListener("popstate", look);
    addEventListener("moved", look);
    document.addEventListener("click", follow);
    return () => {
      removeEventListener("popstate", look);
      removeEventListener("moved", look);
      document.removeEventListener("click", follow);
    };
  }, []);
  return address;
}
