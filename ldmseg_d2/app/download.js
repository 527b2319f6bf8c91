// A file made in the browser: no copy of the annotation stays on the server.
watch("value", () => {
  if (!props.value?.data) return;
  const bytes = Uint8Array.from(atob(props.value.data), (c) => c.charCodeAt(0));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([bytes], { type: "application/zip" }));
  link.download = props.value.name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
});
