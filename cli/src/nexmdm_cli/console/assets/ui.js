// Components of the pages.

import { html, useEffect, useLayoutEffect, useRef, useState } from "/assets/vendor/preact-htm.module.js";
import { ago, instant, number, time, until } from "/assets/format.js";

/** A page with its heading, which is focused when the page opens, and the age of its data. */
export function Page({ title, poll, actions, back, children }) {
  const heading = useRef();
  useLayoutEffect(() => {
    document.title = `${title} · NexMDM`;
  }, [title]);
  useEffect(() => {
    if (Page.moved) heading.current.focus({ preventScroll: true });
    Page.moved = true;
  }, []);
  return html`
    <div class="heading">
      <div>
        ${back && html`<a class="back" href=${back.to}>${back.label}</a>`}
        <h1 ref=${heading} tabindex="-1">${title}</h1>
      </div>
      <div class="row">${actions}</div>
      ${poll && html`<${Freshness} poll=${poll} />`}
    </div>
    ${poll?.error && html`<${Notice} problem=${poll.error} />`}
    ${children}
  `;
}

function Freshness({ poll }) {
  const { at, error, next } = poll;
  const updated = at && html`<time datetime=${at.toISOString()}>${time(at)}</time>`;
  return html`
    <p class="freshness">
      <span class=${error ? "dot bad" : "dot good"}></span>
      <span>
        ${!error && (at ? html`updated ${updated}` : "loading …")}
        ${error && (at ? html`not updated since ${updated}` : "not loaded")}${error && next && `; next attempt ${until(next)}`}
      </span>
      <button type="button" class="quiet" onClick=${poll.refresh} aria-label="Update now" title="Update now">↻</button>
    </p>
  `;
}

/** Tabs of related pages. tabs: [[URL, label]]. */
export const Tabs = ({ label, tabs }) => html`
  <nav class="tabs" aria-label=${label}>
    ${tabs.map(([to, name]) => html`
      <a href=${to} aria-current=${location.pathname === to ? "page" : undefined}>${name}</a>
    `)}
  </nav>
`;

/** An error, announced by screen readers immediately. */
export function Notice({ problem }) {
  return html`<div class="notice" role="alert"><strong>${problem.title ?? "Error"}</strong> ${problem.message}</div>`;
}

export const Empty = ({ children }) => html`<p class="empty">${children}</p>`;

export function Section({ title, actions, children }) {
  return html`
    <section class="card" aria-label=${title}>
      <header class="row spread"><h2>${title}</h2>${actions}</header>
      ${children}
    </section>
  `;
}

const TONES = {
  online: "good",
  sent: "good",
  done: "good",
  current: "good",
  published: "good",
  active: "good",
  ok: "good",
  silent: "bad",
  failed: "bad",
  error: "bad",
  refused: "bad",
  down: "bad",
  unknown: "warn",
  retry_wait: "warn",
  paused: "warn",
  warn: "warn",
  sending: "busy",
  accepted: "busy",
  declared: "busy",
};

export const Badge = ({ name, label = name }) => html`<span class="badge ${TONES[name] ?? "off"}">${label}</span>`;

export const When = ({ at }) =>
  at ? html`<time datetime=${at} title=${instant(at)}>${ago(at)}</time>` : html`<span class="muted">never</span>`;

/** Name and value pairs. */
export const Facts = ({ of }) => html`
  <dl class="facts">
    ${of.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}
  </dl>
`;

/** Shares of a total, as a bar and as text. parts: [[name, count, tone]]. */
export function Shares({ parts, label }) {
  const present = parts.filter(([, count]) => count > 0);
  const words = present.map(([name, count]) => `${number(count)} ${name}`).join(", ") || "none";
  return html`
    <figure class="shares">
      <svg class="bar" role="img" aria-label="${label}: ${words}" viewBox="0 0 100 6" preserveAspectRatio="none">
        ${spans(present).map(([tone, x, width]) => html`<rect class=${tone} x=${x} width=${width} height="6" />`)}
      </svg>
      <figcaption>
        ${present.map(([name, count, tone]) => html`<span><i class="dot ${tone}"></i>${number(count)} ${name}</span>`)}
      </figcaption>
    </figure>
  `;
}

function spans(parts) {
  const whole = parts.reduce((sum, [, count]) => sum + count, 0);
  let x = 0;
  return parts.map(([, count, tone]) => {
    const width = (100 * count) / whole;
    x += width;
    return [tone, x - width, width];
  });
}

/** A modal dialog; Escape and the backdrop close it. The browser keeps the focus inside and restores it afterwards. */
export function Dialog({ title, onClose, children }) {
  const element = useRef();
  useEffect(() => {
    const before = document.activeElement;
    element.current.showModal();
    return () => before?.isConnected && before.focus();
  }, []);
  return html`
    <dialog ref=${element} aria-label=${title} onClose=${onClose}
      onMouseDown=${(event) => event.target === element.current && onClose()}>
      <div class="sheet">
        <header class="row spread">
          <h2>${title}</h2>
          <button type="button" class="quiet" aria-label="Close" onClick=${onClose}>✕</button>
        </header>
        ${children}
      </div>
    </dialog>
  `;
}

/** A form with one action: it is disabled while the action runs, and shows errors. onSubmit receives the FormData. */
export function Form({ submit, danger, disabled, onSubmit, onCancel, children }) {
  const [state, setState] = useState({});
  const send = async (event) => {
    event.preventDefault();
    setState({ busy: true });
    try {
      await onSubmit(new FormData(event.target));
      setState({});
    } catch (problem) {
      setState({ problem });
    }
  };
  return html`
    <form onSubmit=${send}>
      ${children}
      ${state.problem && html`<${Notice} problem=${state.problem} />`}
      <div class="row end">
        ${onCancel && html`<button type="button" onClick=${onCancel}>Cancel</button>`}
        <button class=${danger ? "primary danger" : "primary"} disabled=${state.busy || disabled}>
          ${state.busy ? "Working …" : state.problem ? `Try again: ${submit}` : submit}
        </button>
      </div>
    </form>
  `;
}

/** A labelled field; screen readers announce `hint` with it. */
export function Field({ label, hint, children, ...input }) {
  const id = `f-${input.name}`;
  const described = hint ? `${id}-hint` : undefined;
  return html`
    <div class="field">
      <label for=${id}>${label}${input.required ? "" : html` <span class="muted">(optional)</span>`}</label>
      ${
        children
          ? html`<select id=${id} aria-describedby=${described} ...${input}>${children}</select>`
          : input.type === "textarea"
            ? html`<textarea id=${id} aria-describedby=${described} rows="4" ...${input}></textarea>`
            : html`<input id=${id} aria-describedby=${described} autocomplete="off" ...${input} />`}
      ${hint && html`<small id=${described}>${hint}</small>`}
    </div>
  `;
}

export const Check = ({ label, ...input }) => html`
  <label class="check"><input type="checkbox" ...${input} /> ${label}</label>
`;
