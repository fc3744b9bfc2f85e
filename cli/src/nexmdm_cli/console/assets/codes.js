// What a phone is told when it is enrolled. The console composes it, as the command line does.

import { ask, call, Problem } from "/assets/api.js";

const AGENT = "com.nexmdm";

/** {svg, adb}: the code that the agent scans, and the same as a command for a phone on a cable. */
export const forAgent = (server, { token, alias }) => composed("agent", { server, token, alias });

/** {svg}: the code with which a factory-reset phone makes the agent its device owner. */
export async function forNewPhone(server, { token }) {
  const { items } = await call("GET", `/v1/apk/builds?package_name=${AGENT}&build_type=release&current=true`);
  if (!items.length)
    throw new Problem(0, {
      title: "No agent",
      detail: `No release of ${AGENT} is current. Publish and promote one first.`,
    });
  const [{ build_id, version_name, paused_at, staged_rollout_percent }] = items;
  if (paused_at || staged_rollout_percent < 100)
    throw new Problem(0, {
      title: "Agent not offered to all",
      detail: `Build ${build_id} (${AGENT} ${version_name}) is ${
        paused_at ? "paused" : `offered to ${staged_rollout_percent} % of the fleet only`
      }, so a new phone might not be given it. Roll it out to all first.`,
    });
  return composed("device-owner", { server, token, signer_fingerprint: items[0].signer_fingerprint });
}

const composed = (kind, told) =>
  ask(`/console/codes/${kind}`, { method: "POST", body: JSON.stringify(told) }).then((answer) => answer.json());
