// The filter in the address of a list or a picture.

const OF_PAGE = ["at", "crops", "order", "run", "shown"]; // what is about the page itself
export const address = new URLSearchParams([...new URLSearchParams(location.search)].filter(([, value]) => value));
export const filter = new URLSearchParams([...address].filter(([name]) => !OF_PAGE.includes(name)));
export const view = filter.has("view") ? { view: filter.get("view") } : {};
export const query = (more = {}) => new URLSearchParams({ ...Object.fromEntries(filter), ...more }).toString();
