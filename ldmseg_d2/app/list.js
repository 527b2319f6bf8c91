// The list of segments: a click on a row picks its segment.
element.addEventListener("click", (event) => {
  const row = event.target.closest("li[data-id]");
  if (row) trigger("pick", { id: Number(row.dataset.id) });
});
