// Runs before the page is drawn, so that it never flashes in the other theme. The default is the system's theme.
const chosen = localStorage.getItem("nexmdm-theme");
if (chosen) document.documentElement.dataset.theme = chosen;
