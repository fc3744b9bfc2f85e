// Choosing devices: a label selector with completion, groups, labels as chips, and the preview of a filter.

import { html, useLayoutEffect, useRef, useState } from "/assets/vendor/preact-htm.module.js";
import { call, pages } from "/assets/api.js";
import { count, number } from "/assets/format.js";
import { usePoll } from "/assets/poll.js";
import { Field } from "/assets/ui.js";

const MOST_SUGGESTED = 8;
// The values that a selector can contain; others are matched by key.
const WRITABLE = /^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$/;

const labelsInUse = (signal) => call("GET", "/v1/labels", { signal }).then((answer) => answer.items);

export const useLabels = () => usePoll("labels", labelsInUse, 60).data ?? [];

async function everyGroup(signal) {
  const items = [];
  for await (const page of pages("/v1/groups", {}, signal)) items.push(...page);
  return items;
}

export const useGroups = () => usePoll("groups", everyGroup, 30);

/** A link to the devices with a label. */
export const selecting = (key, value) =>
  `/devices?selector=${encodeURIComponent(WRITABLE.test(value) ? `${key}=${value}` : key)}`;

export const Labels = ({ of }) =>
  Object.entries(of ?? {})
    .sort()
    .map(([key, value]) => html`<a class="chip" key=${key} href=${selecting(key, value)}>${key}=${value}</a> `);

/** A description of a filter. */
export function described(filter) {
  const words = [];
  if (filter.all) words.push("every device");
  if (filter.selector) words.push(filter.selector);
  if (filter.group) words.push(`group ${filter.group}`);
  if (filter.alias_prefix) words.push(`alias ${filter.alias_prefix}…`);
  if ("online" in filter) words.push(filter.online ? "online" : "silent");
  if (filter.agent_version) words.push(`agent ${filter.agent_version}`);
  if (filter.app) words.push(appWords(filter.app));
  return words.join(" · ");
}

function appWords({ package: name, version_code_below: below, missing }) {
  if (missing) return `without the app ${name}`;
  return below == null ? `app ${name}` : `app ${name} below ${below}`;
}

/** [[complete text, shown text]] of the completions for the last requirement of a selector. */
function suggestions(text, labels) {
  const before = /^(?:[^,()]*(?:\([^()]*\))?[^,()]*,)*/.exec(text)[0];
  const begun = text.slice(before.length).trimStart();
  const compared = /^([a-z0-9_.-]+\s*(?:==|=|!=)\s*)(.*)$/.exec(begun);
  if (compared) {
    const key = compared[1].replace(/[\s=!]+$/, "");
    const values = labels.find((label) => label.key === key)?.values ?? [];
    return values
      .filter(({ value }) => WRITABLE.test(value) && value.startsWith(compared[2]) && value !== compared[2])
      .map(({ value, device_count: n }) => [`${before}${compared[1]}${value}`, `${key}=${value} (${number(n)})`]);
  }
  const negated = begun.startsWith("!") ? "!" : "";
  const key = begun.slice(negated.length);
  return labels
    .filter((label) => label.key.startsWith(key) && label.key !== key)
    .map((label) => [`${before}${negated}${label.key}`, `${negated}${label.key} (${number(label.device_count)})`]);
}

/** onChange receives the text with every keystroke. problem: of the request that used it. */
export function SelectorField({ value, onChange, problem, label = "Labels" }) {
  const labels = useLabels();
  const [open, setOpen] = useState(false);
  const [active, setActive] = useState(-1);
  const input = useRef();
  const id = `selector-${label.replaceAll(" ", "-").toLowerCase()}`;
  const offered = open ? suggestions(value, labels).slice(0, MOST_SUGGESTED) : [];
  const error = problem?.errors?.find(({ path }) => path.endsWith("selector"));
  const take = (whole) => {
    onChange(whole);
    setActive(-1);
    input.current.focus();
  };
  const keys = (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      if (!offered.length) return;
      event.preventDefault();
      setActive((active + (event.key === "ArrowDown" ? 1 : offered.length)) % offered.length);
    } else if (event.key === "Enter" && offered[active]) {
      event.preventDefault();
      take(offered[active][0]);
    } else if (event.key === "Escape" && open) {
      event.stopPropagation();
      event.preventDefault();
      setOpen(false);
    }
  };
  return html`
    <div class="field selector">
      <label for=${id}>${label}</label>
      <input id=${id} ref=${input} type="text" autocomplete="off" spellcheck="false" value=${value}
        placeholder="site=berlin,role!=spare" role="combobox" aria-expanded=${offered.length > 0}
        aria-controls="${id}-list" aria-invalid=${error ? "true" : undefined} aria-describedby="${id}-error"
        aria-activedescendant=${offered[active] ? `${id}-${active}` : undefined}
        onFocus=${() => setOpen(true)} onBlur=${() => setOpen(false)} onKeyDown=${keys}
        onInput=${(event) => {
          onChange(event.target.value);
          setOpen(true);
          setActive(-1);
        }} />
      <ul id="${id}-list" role="listbox" aria-label="Suggestions" hidden=${!offered.length}>
        ${offered.map(([whole, shown], n) => html`
          <li id="${id}-${n}" role="option" aria-selected=${n === active}
            onMouseDown=${(event) => {
              event.preventDefault();
              take(whole);
            }}>${shown}</li>
        `)}
      </ul>
      <small id="${id}-error" class="bad" role=${error ? "alert" : undefined}>${error?.detail}</small>
    </div>
  `;
}

export function GroupChoice({ value, onChange, label = "Group" }) {
  const groups = useGroups().data ?? [];
  const names = groups.map(({ name }) => name);
  if (value && !names.includes(value)) names.push(value);
  return html`
    <label>
      ${label}
      <select value=${value} onChange=${(event) => onChange(event.target.value)}>
        <option value="">All devices</option>
        ${names.map((name) => html`<option value=${name} selected=${name === value}>${name}</option>`)}
      </select>
    </label>
  `;
}

/** The preview of a filter: {preview, problem}; reloaded when `again` changes. */
export function usePreview(target, again = 0) {
  const [state, setState] = useState({});
  const asked = useRef(false);
  const key = target && JSON.stringify(target);
  // A layout effect: an earlier preview must be gone before the next key, which may be Enter.
  useLayoutEffect(() => {
    setState({});
    if (!key) return undefined;
    const stop = new AbortController();
    const ask = () =>
      call("POST", "/v1/devices/preview", { body: JSON.parse(key), signal: stop.signal }).then(
        (preview) => setState({ preview }),
        (problem) => problem.name !== "AbortError" && setState({ problem }),
      );
    // Not for every keystroke.
    const paused = setTimeout(ask, asked.current ? 250 : 0);
    asked.current = true;
    return () => {
      clearTimeout(paused);
      stop.abort();
    };
  }, [key, again]);
  return state;
}

export function PreviewLine({ preview }) {
  if (!preview) return html`<p class="muted" role="status">Loading the devices …</p>`;
  const more = preview.device_count - preview.sample.length;
  const names = preview.sample.join(", ") + (more > 0 ? ` and ${number(more)} more` : "");
  return html`
    <p role="status"><strong>${count(preview.device_count, "device")}</strong>${names && html`<span class="muted"> ${names}</span>`}</p>
  `;
}

const SHOWN = ["selector", "group", "alias_prefix", "online"];

/**
 * The devices of a form: {filter, fields, ready, problem}.
 *
 * initial: the filter to edit; its parts that no field shows stay unchanged.
 * every: whether an empty choice means every device, as {all: true}; otherwise a filter is required.
 * group: whether a group may be chosen.
 */
export function useFilter(initial, { every = true, group = true } = {}) {
  const [chosen, setChosen] = useState(() => {
    const { all, ...rest } = initial ?? {};
    return rest;
  });
  const some = Object.keys(chosen).length > 0;
  const filter = some ? chosen : every ? { all: true } : null;
  const { preview, problem } = usePreview(filter && { filter });
  const change = (name, value) => {
    const { [name]: _, ...rest } = chosen;
    setChosen(value === "" ? rest : { ...rest, [name]: value });
  };
  const more = described(Object.fromEntries(Object.entries(chosen).filter(([name]) => !SHOWN.includes(name))));
  const ofSelector = problem?.errors?.[0].path.endsWith("selector");
  const fields = html`
    <fieldset>
      <legend>Devices${every && html` <span class="muted">(nothing chosen: every device)</span>`}</legend>
      <${SelectorField} value=${chosen.selector ?? ""} problem=${problem} onChange=${(text) => change("selector", text)} />
      ${group && html`
        <div class="field"><${GroupChoice} value=${chosen.group ?? ""} onChange=${(name) => change("group", name)} /></div>
      `}
      <${Field} label="Alias begins with" name="alias_prefix" maxlength="200" value=${chosen.alias_prefix ?? ""}
        onInput=${(event) => change("alias_prefix", event.target.value)} />
      <${Field} label="State" name="online" onChange=${({ target: { value } }) => change("online", value && value === "online")}>
        <option value="" selected=${!("online" in chosen)}>Online or silent</option>
        <option value="online" selected=${chosen.online === true}>Online</option>
        <option value="silent" selected=${chosen.online === false}>Silent</option>
      <//>
      ${more && html`<p class="muted">Also: ${more}</p>`}
      ${filter && !problem && html`<${PreviewLine} preview=${preview} />`}
      ${problem && !ofSelector && html`<p class="bad">${problem.message}</p>`}
    </fieldset>
  `;
  return { filter, fields, ready: Boolean(preview), problem };
}
