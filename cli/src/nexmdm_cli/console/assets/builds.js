// Builds: published builds, the builds offered to the fleet, and the progress of rollouts.

import { html, useRef, useState } from "/assets/vendor/preact-htm.module.js";
import { call, pages } from "/assets/api.js";
import { LatestEvents } from "/assets/events.js";
import { bytes, count, instant, NONE, who, yesNo } from "/assets/format.js";
import { usePoll } from "/assets/poll.js";
import { described, GroupChoice, PreviewLine, SelectorField, usePreview } from "/assets/selector.js";
import { Table } from "/assets/table.js";
import { Badge, Check, Dialog, Facts, Field, Form, Page, Section, Shares, When } from "/assets/ui.js";

const standing = (build) => (!build.is_current ? build.state : build.paused_at ? "paused" : "current");
const address = (build) => `/v1/apk/builds/${build.build_id}`;

const COLUMNS = [
  {
    key: "version",
    label: "Build",
    head: true,
    cell: (build) => html`
      <a href="/builds/${build.build_id}">${build.version_name} (${build.version_code})</a>
      ${build.build_type === "debug" && html` <${Badge} name="debug" />`}
      <div class="muted">${build.package_name}</div>
    `,
  },
  {
    key: "state",
    label: "State",
    cell: (build) => html`
      <${Badge} name=${standing(build)} />
      ${build.is_current && !build.paused_at && html` <span class="muted nowrap">for ${build.staged_rollout_percent} %</span>`}
    `,
  },
  { key: "installed", label: "Installations", cell: (build) => html`<${Installations} build=${build} />` },
  { key: "uploaded", label: "Declared", kind: "wide", cell: (build) => html`<${When} at=${build.uploaded_at} />` },
];

const table = (builds, columns) => html`
  <${Table} caption="Builds" columns=${columns} rows=${builds} id=${(build) => build.build_id}
    empty=${html`No build has been published yet. Publish one with <code>nexmdm builds publish FILE.apk</code>.`} />
`;

export const CurrentBuilds = ({ builds }) => table(builds, COLUMNS.slice(0, 3));

const Installations = ({ build }) => {
  const { pending, downloading, installing, completed, failed, unknown } = build.statistics;
  const parts = [
    ["installed", completed, "good"],
    ["failed", failed, "bad"],
    ["under way", downloading + installing, "busy"],
    ["pending", pending, "off"],
    ["unknown", unknown, "off"],
  ];
  return parts.some(([, n]) => n) ? html`<${Shares} label="Installations" parts=${parts} />` : NONE;
};

export function Builds() {
  const poll = usePoll("builds", everyBuild);
  return html`<${Page} title="Builds" poll=${poll}>${poll.data && table(poll.data, COLUMNS)}<//>`;
}

async function everyBuild(signal) {
  const items = [];
  for await (const page of pages("/v1/apk/builds", {}, signal)) items.push(...page);
  return items;
}

export function Build({ id }) {
  const poll = usePoll(
    `build ${id}`,
    (signal) => call("GET", `/v1/apk/builds/${encodeURIComponent(id)}`, { signal }),
    5,
  );
  const [doing, setDoing] = useState(null);
  const build = poll.data;
  const finish = () => {
    setDoing(null);
    poll.refresh();
  };
  const Doing = DIALOGS[doing];
  return html`
    <${Page} title=${build ? `${build.package_name} ${build.version_name}` : "Build"} poll=${poll}
      back=${{ to: "/builds", label: "← Builds" }}
      actions=${build && html`<${Possible} build=${build} onAsk=${setDoing} />`}>
      ${build && html`
        <${Rollout} build=${build} />
        <${Devices} build=${build} />
        <${About} build=${build} />
        <${LatestEvents} object=${`build:${build.build_id}`} />
      `}
      ${Doing && html`<${Doing} build=${build} onDone=${finish} onClose=${() => setDoing(null)} />`}
    <//>
  `;
}

/** The actions that a build's state allows. */
function Possible({ build, onAsk }) {
  const button = (name, label, tone = "") =>
    html`<button type="button" class=${tone} onClick=${() => onAsk(name)}>${label}</button>`;
  if (build.state === "awaiting_signer") return button("promote", "Pin signer and promote", "primary");
  if (build.state === "declared") return button("withdraw", "Withdraw", "danger");
  if (build.state !== "published") return null;
  if (!build.is_current) return button("promote", "Promote", "primary");
  return html`
    ${button("rollout", "Roll out", "primary")}
    ${build.paused_at ? button("resume", "Resume") : button("pause", "Pause")}
    ${button("rollback", "Roll back", "danger")}
  `;
}

const offered = (build) => (build.paused_at ? 0 : build.staged_rollout_percent);

const Rollout = ({ build }) => html`
  <${Section} title="Rollout">
    <p class="state">
      <${Badge} name=${standing(build)} />
      ${!build.is_current && build.paused_reason && ` ${build.paused_reason}`}
      ${build.is_current && build.paused_at && ` paused: ${build.paused_reason}`}
      ${build.is_current && !build.paused_at && ` offered to ${offered(build)} % of ${build.rollout_filter ? described(build.rollout_filter) : "the fleet"}`}
      ${build.refusal && ` ${build.refusal}`}
    </p>
    ${build.is_current && html`
      <label class="progress">
        Offered to <progress max="100" value=${offered(build)}></progress> ${offered(build)} %
      </label>
    `}
    <${Installations} build=${build} />
    <p class="muted">${count(build.statistics.issued, "download address", "download addresses")} handed out.</p>
    ${build.plan && html`<p>${planned(build.plan)}</p>`}
    ${(build.warnings ?? []).map((warning) => html`<p class="problem">${warning}</p>`)}
  <//>
`;

const planned = (plan) =>
  `Stages ${plan.stages.map((stage) => `${stage.percent} %`).join(", ")}: stage ${plan.stage} since ` +
  `${instant(plan.stage_at)}${plan.end ? `; ended: ${plan.end}` : ""}.`;

const INSTALLATION_COLUMNS = [
  {
    key: "device",
    label: "Device",
    head: true,
    cell: (one) => html`<a href="/devices/${one.device_id}">${one.alias}</a>`,
  },
  { key: "status", label: "Status", cell: (one) => html`<${Badge} name=${one.status} />` },
  { key: "error", label: "Error", cell: (one) => one.error ?? NONE },
  { key: "asked", label: "Asked", kind: "wide", cell: (one) => html`<${When} at=${one.initiated_at} />` },
  { key: "ended", label: "Ended", kind: "wide", cell: (one) => (one.ended_at ? html`<${When} at=${one.ended_at} />` : NONE) },
];

/** The devices that were asked to install the build, with statuses and errors. */
function Devices({ build }) {
  const [status, setStatus] = useState("failed");
  const poll = usePoll(
    `installations of ${build.build_id} ${status}`,
    (signal) => call("GET", `${address(build)}/installations?limit=100${status ? `&status=${status}` : ""}`, { signal }),
    15,
  );
  if (!poll.data) return null;
  return html`
    <${Section} title="Installations">
      <label>Show <select value=${status} onChange=${(event) => setStatus(event.target.value)}>
        <option value="failed">failed</option>
        <option value="unknown">unknown</option>
        <option value="installing">installing</option>
        <option value="completed">completed</option>
        <option value="">all</option>
      </select></label>
      <${Table} caption="Installations" columns=${INSTALLATION_COLUMNS} rows=${poll.data.items}
        id=${(one) => one.installation_id} empty="No installation matches." />
    <//>
  `;
}

const About = ({ build }) => html`
  <${Section} title="Build">
    <${Facts} of=${[
      ["Version", `${build.version_name} (${build.version_code}), ${build.build_type}`],
      ["Size", bytes(build.file_size)],
      ["Declared", `${instant(build.uploaded_at)} by ${who(build.uploaded_by)}`],
      ["Published", instant(build.published_at)],
      ["Promoted", build.promoted_at ? `${instant(build.promoted_at)} by ${who(build.promoted_by)}` : NONE],
      [
        "Replaces",
        build.replaces_id ? html`<a href="/builds/${build.replaces_id}">build ${build.replaces_id}</a>` : NONE,
      ],
      ["Source", [build.source, build.ci_run_id, build.git_sha].filter(Boolean).join(" · ") || NONE],
      ["WiFi only", yesNo(build.wifi_only)],
      ["Must be installed", yesNo(build.must_install)],
      ["SHA-256", html`<code>${build.sha256}</code>`],
      ["Signer", html`<code>${build.signer_fingerprint ?? NONE}</code>`],
      ["Notes", build.notes ?? NONE],
    ]} />
  <//>
`;

/** A dialog that asks for the inputs of an action and performs it. */
function Ask({ title, text, submit, danger, disabled, onSubmit, onDone, onClose, children }) {
  const done = async (form) => {
    await onSubmit(form);
    onDone();
  };
  return html`
    <${Dialog} title=${title} onClose=${onClose}>
      <p>${text}</p>
      <${Form} submit=${submit} danger=${danger} disabled=${disabled} onSubmit=${done} onCancel=${onClose}>${children}<//>
    <//>
  `;
}

/** The filter from a rollout's fields, and its preview; {} leaves the rollout's filter unchanged. */
function useAudience(build) {
  const [filter, setFilter] = useState(build.rollout_filter ?? {});
  const [again, setAgain] = useState(0);
  const asked = Object.keys(filter).length ? filter : { all: true };
  const { preview, problem } = usePreview({ filter: asked }, again);
  const change = (name, value) => {
    const { [name]: _, all: __, ...rest } = filter;
    setFilter(value ? { ...rest, [name]: value } : rest);
  };
  const post = async (path, body, key) => {
    try {
      // A rollout to all devices is not rejected because devices enroll in the meantime.
      const expected = asked.all ? {} : { expect_target_hash: preview.target_hash };
      const sent = { ...body, filter: asked, ...expected };
      return await call("POST", path, { body: sent, ...(key && { key }) });
    } catch (refusal) {
      if (refusal.code === "targets_changed") setAgain(again + 1);
      throw refusal;
    }
  };
  const fields = html`
    <${SelectorField} label="Only devices with labels" value=${filter.selector ?? ""} problem=${problem}
      onChange=${(text) => change("selector", text)} />
    <div class="field"><${GroupChoice} label="Only devices of the group" value=${filter.group ?? ""}
      onChange=${(name) => change("group", name)} /></div>
    ${problem && !problem.errors ? html`<p class="bad">${problem.message}</p>` : html`<${PreviewLine} preview=${preview} />`}
  `;
  return { post, fields, ready: Boolean(preview) };
}

const share = (form) => ({ staged_rollout_percent: Number(form.get("percent")) });

const Percent = ({ value }) => html`
  <${Field} label="Share of the devices (%)" name="percent" type="number" required min="0" max="100" defaultValue=${value} />
`;

const Reason = () =>
  html`<${Field} label="Reason" name="reason" required maxlength="500" hint="Kept in the build's history." />`;

function Promote({ build, ...ask }) {
  const { post, fields, ready } = useAudience({});
  return html`
    <${Ask} ...${ask} title="Promote ${build.version_name}" submit="Promote" disabled=${!ready}
      text="It becomes current for a share of the devices; the others are still offered the build that it replaces."
      onSubmit=${(form) => post(`${address(build)}/promote`, share(form))}>
      <${Percent} value="10" />
      ${fields}
    <//>
  `;
}

function RollOut({ build, ...ask }) {
  const key = useRef(crypto.randomUUID());
  const { post, fields, ready } = useAudience(build);
  const submit = (form) => {
    const install = form.get("install") === "on";
    return post(`${address(build)}/rollout`, { ...share(form), install }, install && key.current);
  };
  return html`
    <${Ask} ...${ask} title="Roll out ${build.version_name}" submit="Roll out" disabled=${!ready} onSubmit=${submit}
      text="A larger share only adds devices; a smaller one stops offering it to those that have not installed it.">
      <${Percent} value=${build.staged_rollout_percent} />
      ${fields}
      <${Check} name="install" label="Ask devices that neither have it nor were already asked to install it now" />
    <//>
  `;
}

const reasoned =
  (what, title, submit, text, danger) =>
  ({ build, ...ask }) => html`
  <${Ask} ...${ask} title="${title} ${build.version_name}" submit=${submit} text=${text} danger=${danger}
    onSubmit=${(form) => call("POST", `${address(build)}/${what}`, { body: { reason: form.get("reason") } })}>
    <${Reason} />
  <//>
`;

const Resume = ({ build, ...ask }) => html`
  <${Ask} ...${ask} title="Resume ${build.version_name}" submit="Resume"
    text="It is offered again; failed installations are counted from now on."
    onSubmit=${() => call("POST", `${address(build)}/resume`, { body: {} })} />
`;

const Withdraw = ({ build, ...ask }) => html`
  <${Ask} ...${ask} title="Withdraw ${build.version_name}" submit="Withdraw" danger
    text="Its version code can be declared again. It was never offered to a device."
    onSubmit=${() => call("DELETE", address(build))} />
`;

const DIALOGS = {
  promote: Promote,
  rollout: RollOut,
  resume: Resume,
  withdraw: Withdraw,
  pause: reasoned("pause", "Pause", "Pause", "It is not offered to devices until it is resumed."),
  rollback: reasoned(
    "rollback",
    "Roll back",
    "Roll back",
    "The build that it replaced becomes current again; this build can no longer be downloaded.",
    true,
  ),
};
