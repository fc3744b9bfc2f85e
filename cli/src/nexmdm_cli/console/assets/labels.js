// Changing labels of one device, of selected devices, or of the devices of a filter.

import { html, useState } from "/assets/vendor/preact-htm.module.js";
import { call } from "/assets/api.js";
import { count } from "/assets/format.js";
import { PreviewLine, useLabels, usePreview } from "/assets/selector.js";
import { Dialog, Field, Form, Notice } from "/assets/ui.js";

/** {set, remove} from lines KEY=VALUE and KEY-. */
export function changes(text) {
  const set = {};
  const remove = [];
  for (const line of text.split("\n").map((line) => line.trim())) {
    if (!line) continue;
    const at = line.indexOf("=");
    if (at > 0) set[line.slice(0, at).trim()] = line.slice(at + 1).trim();
    else if (line.endsWith("-")) remove.push(line.slice(0, -1));
    else throw new Error(`“${line}” is neither KEY=VALUE nor KEY-.`);
  }
  return { set, remove };
}

/** target: {device_ids} or {filter}. */
export function EditLabels({ target, onDone, onClose }) {
  const [again, setAgain] = useState(0);
  const { preview, problem } = usePreview(target, again);
  const keys = useLabels().map(({ key }) => key);
  const submit = async (form) => {
    const body = { ...target, ...changes(form.get("changes")), expect_target_hash: preview.target_hash };
    try {
      await call("POST", "/v1/devices/labels", { body });
    } catch (refusal) {
      if (refusal.code === "targets_changed") setAgain(again + 1);
      throw refusal;
    }
    onDone();
  };
  return html`
    <${Dialog} title="Edit labels" onClose=${onClose}>
      ${problem ? html`<${Notice} problem=${problem} />` : html`<${PreviewLine} preview=${preview} />`}
      <${Form} submit=${`Change labels of ${preview ? count(preview.device_count, "device") : "…"}`}
        disabled=${!preview?.device_count} onSubmit=${submit}>
        <${Field} label="Labels" name="changes" type="textarea" required placeholder="site=berlin"
          hint=${`One per line: KEY=VALUE sets a label, KEY- removes one.${keys.length ? ` In use: ${keys.slice(0, 12).join(", ")}.` : ""}`} />
      <//>
    <//>
  `;
}

export const deleteMany = async (target, preview) =>
  call("POST", "/v1/devices/delete", { body: { ...target, expect_target_hash: preview.target_hash } });

export function DeleteDevices({ target, onDone, onClose }) {
  const [again, setAgain] = useState(0);
  const { preview, problem } = usePreview(target, again);
  const submit = async () => {
    try {
      await deleteMany(target, preview);
    } catch (refusal) {
      if (refusal.code === "targets_changed") setAgain(again + 1);
      throw refusal;
    }
    onDone();
  };
  return html`
    <${Dialog} title="Delete devices" onClose=${onClose}>
      ${problem ? html`<${Notice} problem=${problem} />` : html`<${PreviewLine} preview=${preview} />`}
      <p>Their tokens become invalid and they must be enrolled again to come back. Their aliases are free again.</p>
      <${Form} submit=${`Delete ${preview ? count(preview.device_count, "device") : "…"}`} danger
        disabled=${!preview?.device_count} onCancel=${onClose} onSubmit=${submit} />
    <//>
  `;
}
