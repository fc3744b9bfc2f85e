// Before the page is drawn, so that it never flashes in the other theme. Without a choice the system's theme counts.
const chosen = localStorage.getItem("nexmdm-theme");
if (chosen) document.documentElement.dataset.theme = chosen;
