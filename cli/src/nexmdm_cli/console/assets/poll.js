// Live data: refreshed regularly while the page is visible, less often if requests are slow or fail.

import { useEffect, useRef, useState } from "/assets/vendor/preact-htm.module.js";

const seen = new Map();
const LONGEST_WAIT = 300;

/**
 * Data under a key; earlier data with the same key is shown immediately.
 *
 * load(signal, show): resolves to the data; may show parts of it while loading.
 * seconds: between a response and the next request, or a function of the data; null stops polling.
 * Returns {data, error, at, next, refresh}: `at` is when the data was received, `next` the time of the next request;
 * refresh() reloads everything on the page immediately.
 */
export function usePoll(key, load, seconds = 10) {
  const [state, setState] = useState({ key, ...seen.get(key) });
  const running = useRef({});
  running.current = { load, seconds };

  useEffect(() => {
    let timer, controller;
    let failures = 0;
    const show = (change) => setState((now) => ({ ...(now.key === key ? now : { key }), ...change }));
    show({ error: undefined, ...seen.get(key) });

    async function run() {
      clearTimeout(timer);
      controller?.abort();
      const { signal } = (controller = new AbortController());
      const started = performance.now();
      let asked = 0;
      try {
        const data = await running.current.load(signal, (part) => signal.aborted || show({ data: part }));
        if (signal.aborted) return;
        failures = 0;
        seen.set(key, { data, at: new Date() });
        show({ ...seen.get(key), error: undefined });
      } catch (error) {
        if (signal.aborted) return;
        failures += 1;
        asked = error.retryAfter ?? 0;
        show({ error });
      }
      const usual = usualWait(running.current.seconds, seen.get(key)?.data);
      if (usual === null || document.hidden) return show({ next: null });
      // Slow requests are made less often, so that they take at most a tenth of the time.
      const took = (performance.now() - started) / 1000;
      const wait = Math.min(LONGEST_WAIT, Math.max(usual * 2 ** failures, asked, 10 * took));
      show({ next: new Date(Date.now() + wait * 1000) });
      timer = setTimeout(run, wait * 1000);
    }

    function look() {
      if (!document.hidden) return run();
      clearTimeout(timer);
    }

    run();
    addEventListener("refresh", run);
    document.addEventListener("visibilitychange", look);
    return () => {
      removeEventListener("refresh", run);
      document.removeEventListener("visibilitychange", look);
      clearTimeout(timer);
      controller?.abort();
    };
  }, [key]);

  return { ...(state.key === key ? state : { ...seen.get(key) }), refresh };
}

const usualWait = (seconds, data) => (typeof seconds === "function" ? seconds(data) : seconds);

/** Reload everything on the page, because an action may have changed any of it. */
const refresh = () => dispatchEvent(new Event("refresh"));

/** The earlier data under a key, without a request. */
export const known = (key) => seen.get(key)?.data;
