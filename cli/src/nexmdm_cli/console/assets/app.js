// The page's frame: navigation, theme, and routing from URLs to pages.

import { html, render, useEffect, useRef, useState } from "/assets/vendor/preact-htm.module.js";
import { Alerts, alertsTally, useAlerts } from "/assets/alerts.js";
import { takeToken } from "/assets/api.js";
import { Apps } from "/assets/apps.js";
import { Build, Builds } from "/assets/builds.js";
import { Command, Commands } from "/assets/commands.js";
import { Device } from "/assets/device.js";
import { Devices } from "/assets/devices.js";
import { Enroll } from "/assets/enroll.js";
import { Events } from "/assets/events.js";
import { Fleet } from "/assets/fleet.js";
import { Groups } from "/assets/groups.js";
import { Mutes } from "/assets/mutes.js";
import { Reference } from "/assets/reference.js";
import { useAddress } from "/assets/router.js";
import { Rules } from "/assets/rules.js";
import { Schedule, Schedules } from "/assets/schedules.js";
import { Empty, Page } from "/assets/ui.js";

const PLACES = {
  "": Fleet,
  devices: Devices,
  "devices/": Device,
  commands: Commands,
  "commands/": Command,
  schedules: Schedules,
  "schedules/": Schedule,
  builds: Builds,
  "builds/": Build,
  apps: Apps,
  groups: Groups,
  enroll: Enroll,
  alerts: Alerts,
  "alerts/mutes": Mutes,
  "alerts/rules": Rules,
  events: Events,
  "api-reference": Reference,
};

const Nowhere = () =>
  html`<${Page} title="Not found"><${Empty}>There is no such page. <a href="/">Go to the fleet</a><//><//>`;

/** A segment of a path; null if it is not percent-encoded text. */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return null;
  }
}

function App() {
  const { path, query } = useAddress();
  const [name, part] = path.slice(1).split("/");
  const id = part && decoded(part);
  const place = part ? (PLACES[`${name}/${part}`] ?? PLACES[`${name}/`]) : PLACES[name];
  const Place = (id !== null && place) || Nowhere;
  return html`
    <a class="skip" href="#content">Skip to content</a>
    <header class="top">
      <a class="brand" href="/"><img src="/assets/icon.svg" alt="" width="24" height="24" /> NexMDM</a>
      <${Navigation} place=${name} />
      <${Theme} />
    </header>
    <main id="content" tabindex="-1"><${Place} key=${path} id=${id} query=${query} /></main>
  `;
}

function Navigation({ place }) {
  const alerts = useAlerts();
  const links = [
    ["", "Fleet"],
    ["devices", "Devices"],
    ["apps", "Apps"],
    ["groups", "Groups"],
    ["commands", "Commands"],
    ["schedules", "Schedules"],
    ["builds", "Builds"],
    ["enroll", "Enrollment"],
    ...(alerts.data ? [["alerts", `Alerts${alertsTally(alerts.data)}`]] : []),
    ["events", "Events"],
    ["api-reference", "API"],
  ];
  const bar = useRef();
  // On a phone the navigation bar is wider than the screen.
  useEffect(
    () => bar.current.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" }),
    [place, links.length],
  );
  return html`
    <nav aria-label="Main" ref=${bar}>
      ${links.map(([name, label]) => html`
        <a href="/${name}" aria-current=${place === name ? "page" : undefined}>${label}</a>
      `)}
    </nav>
  `;
}

function Theme() {
  const [theme, setTheme] = useState(document.documentElement.dataset.theme ?? "");
  const choose = ({ target: { value } }) => {
    setTheme(value);
    if (value) {
      document.documentElement.dataset.theme = value;
      localStorage.setItem("nexmdm-theme", value);
    } else {
      delete document.documentElement.dataset.theme;
      localStorage.removeItem("nexmdm-theme");
    }
  };
  return html`
    <select class="theme" aria-label="Theme" onChange=${choose}>
      ${[
        ["", "Auto"],
        ["light", "Light"],
        ["dark", "Dark"],
      ].map(([value, label]) => html`<option value=${value} selected=${value === theme}>${label}</option>`)}
    </select>
  `;
}

// Pasting the URL of a restarted console over the old one changes only the fragment.
addEventListener("hashchange", async () => (await takeToken()) && location.reload());
await takeToken().catch(() => false); // if there is no response, the page shows that
render(html`<${App} />`, document.getElementById("app"));
