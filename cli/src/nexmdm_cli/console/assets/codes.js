// Enrollment codes. The console's server creates them, as the CLI does.

import { ask, call, Problem } from "/assets/api.js";

const AGENT = "com.nexmdm";

/** {svg, adb}: the code that the agent scans, and the same as an adb command line. */
export const forAgent = (server, { token, alias }) => composed("agent", { server, token, alias });

/** {svg}: the code that makes the agent device owner of a factory-reset phone. */
export async function forNewPhone(server, { token }) {
  const { items } = await call("GET", `/v1/apk/builds?package_name=${AGENT}&build_type=release&current=true`);
  if (!items.length)
    throw new Problem(0, {
      title: "No agent",
      detail: `No release of ${AGENT} is current. Publish and promote one first.`,
    });
  const [{ build_id, version_name, paused_at, staged_rollout_percent, rollout_filter }] = items;
  if (paused_at || staged_rollout_percent < 100 || rollout_filter)
    throw new Problem(0, {
      title: "Agent not offered to all",
      detail: `Build ${build_id} (${AGENT} ${version_name}) is ${
        paused_at
          ? "paused"
          : rollout_filter
            ? "offered to chosen devices only"
            : `offered to ${staged_rollout_percent} % of the fleet only`
      }, so a new phone might not be given it. Roll it out to all first.`,
    });
  return composed("device-owner", { server, token, signer_fingerprint: items[0].signer_fingerprint });
}

const composed = (kind, told) =>
  ask(`/console/codes/${kind}`, { method: "POST", body: JSON.stringify(told) }).then((answer) => answer.json());
