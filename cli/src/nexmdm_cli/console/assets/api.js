// The API, called through this page's own server, which signs the requests.

const TOKEN = "nexmdm-console-token";

/** An error with the text of its problem document. */
export class Problem extends Error {
  constructor(status, said, retryAfter) {
    super(said.detail ?? said.message ?? said.title ?? `The API responded with ${status}.`);
    this.status = status;
    this.title = said.title ?? (status ? `Answer ${status}` : "No answer");
    this.code = said.code;
    this.errors = said.errors;
    this.retryAfter = Number(retryAfter) || 0;
  }
}

/** Exchange the one-time code in the URL's fragment for the token, which is stored for this origin; return whether
 * there was a code. */
export async function takeToken() {
  const found = /^#code=([\w-]+)$/.exec(location.hash);
  if (!found) return false;
  history.replaceState(null, "", location.pathname === "/start" ? "/" : location.pathname + location.search);
  const answer = await fetch("/console/token", { method: "POST", headers: { "X-Console-Code": found[1] } });
  // A used code, as when the page is reopened from the browser's history, leaves the stored token unchanged.
  if (answer.ok) localStorage.setItem(TOKEN, (await answer.json()).token);
  return true;
}

/** The response's JSON, or null if it has no body. `key` is an Idempotency-Key. Throws Problem. */
export async function call(method, path, { body, key, signal } = {}) {
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (key) headers["Idempotency-Key"] = key;
  const answer = await ask(`/api${path}`, { method, signal, headers, body: body && JSON.stringify(body) });
  return answer.status === 204 ? null : answer.json();
}

/** All pages of a list, one after the other. */
export async function* pages(path, query, signal) {
  let cursor = null;
  do {
    const parameters = new URLSearchParams({ limit: 500, ...query, ...(cursor && { cursor }) });
    const page = await call("GET", `${path}?${parameters}`, { signal });
    yield page.items;
    cursor = page.next_cursor;
  } while (cursor);
}

const refused = (method, url) => ({
  title: "Not allowed",
  detail: `Your AWS credentials may not call ${method} ${url.replace(/^\/api|\?.*$/g, "")}. This requires the permission execute-api:Invoke.`,
});

/** The API of this console: {api_url}. */
export const about = () => ask("/console/about").then((answer) => answer.json());

/** The response of the console's own server, or a Problem. */
export async function ask(url, { headers, ...options } = {}) {
  let answer;
  try {
    answer = await fetch(url, {
      ...options,
      headers: { ...headers, "X-Console-Token": localStorage.getItem(TOKEN) ?? "" },
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { detail: "The console's server does not respond. Is `nexmdm console` still running?" });
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({}));
  // A request that IAM rejects does not reach the API, so the response has no problem document.
  if (answer.status === 403 && !said.title) throw new Problem(403, refused(options.method ?? "GET", url));
  throw new Problem(answer.status, said, answer.headers.get("Retry-After"));
}
