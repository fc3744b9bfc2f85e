// What a phone is told when it is enrolled: the agent's QR code, Android's own, and the line for ADB.

import { call, Problem } from "/assets/api.js";

const AGENT = "com.nexmdm";
const RECEIVER = "com.nexmdm/.NexDeviceAdminReceiver";

/** The text of the QR code that the agent scans. */
export const scanned = (server, { token, alias }) => ascii({ server_url: server, admin_key: token, alias });

/** The same as a command for a phone on a cable. */
export const typed = (server, { token, alias }) =>
  [
    "adb shell am broadcast -a com.nexmdm.CONFIGURE -n com.nexmdm/.ConfigReceiver",
    ...[
      ["server_url", server],
      ["admin_key", token],
      ["alias", alias],
    ].map(([name, value]) => `--es ${name} ${twiceQuoted(value)}`),
  ].join(" ");

// Once for this machine's shell and once for the phone's.
const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
const twiceQuoted = (text) => quoted(quoted(text));

/** The text of the QR code with which a factory-reset phone makes the agent its device owner. */
export async function provisioning(server, { token }) {
  const { items } = await call("GET", `/v1/apk/builds?package_name=${AGENT}&build_type=release&current=true`);
  if (!items.length)
    throw new Problem(0, {
      title: "No agent",
      detail: `No release of ${AGENT} is current. Publish and promote one first.`,
    });
  const extra = "android.app.extra.PROVISIONING_DEVICE_ADMIN_";
  return ascii({
    [`${extra}COMPONENT_NAME`]: RECEIVER,
    [`${extra}PACKAGE_DOWNLOAD_LOCATION`]: `${server}/v1/apk/download/latest?token=${token}`,
    [`${extra}SIGNATURE_CHECKSUM`]: base64url(items[0].signer_fingerprint),
  });
}

/** JSON of ASCII alone: scanners guess at the encoding of anything else. */
const ascii = (value) =>
  JSON.stringify(value).replace(/[^\0-\x7f]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);

function base64url(hex) {
  const bytes = hex.match(/../g).map((pair) => parseInt(pair, 16));
  return btoa(String.fromCharCode(...bytes))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replaceAll("=", "");
}
