"use strict";
document.querySelectorAll("table[data-sortable]").forEach((table) => {
  const body = table.tBodies[0];
  const given = Array.from(body.rows);
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const next = { none: "descending", descending: "ascending", ascending: "none" };
      const order = next[head.getAttribute("aria-sort") || "none"];
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      if (order !== "none") head.setAttribute("aria-sort", order);
      const key = (row) => row.cells[column].dataset.value ?? row.cells[column].dataset.high ?? row.cells[column].textContent;
      const compare = (a, b) => {
        const [x, y] = [key(a), key(b)];
        const numbers = Number(x) - Number(y);
        return Number.isNaN(numbers) ? x.localeCompare(y) : numbers;
      };
      const rows = given.slice();
      if (order !== "none") rows.sort((a, b) => (order === "ascending" ? compare(a, b) : compare(b, a)));
      body.append(...rows);
    });
  });
});
