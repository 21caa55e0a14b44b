// The token comes after the #, which a browser never sends, or from the field.
const given = new URLSearchParams(location.hash.slice(1)).get('token');
if (given) {
  sessionStorage.token = given;
  history.replaceState(null, '', location.pathname);
}
const form = document.querySelector('form');
const contact = document.querySelector('#contact');
let shown = '';

function tell(state, text) {
  contact.className = state;
  contact.textContent = text;
  if (form) form.hidden = Boolean(sessionStorage.token);
}

async function show() {
  if (!sessionStorage.token) return tell(contact.className, contact.textContent || 'needs the token');
  let answer;
  try {
    answer = await fetch('/', { headers: { authorization: 'Bearer ' + sessionStorage.token } });
  } catch {
    return tell('lost', 'no answer: it has ended, or is busy');
  }
  if (!answer.ok) {
    delete sessionStorage.token;
    document.querySelector('main').replaceChildren();
    return tell('lost', 'this is not the token');
  }
  const text = await answer.text();
  tell('live', 'live');
  if (text === shown) return;
  shown = text;
  const main = new DOMParser().parseFromString(text, 'text/html').querySelector('main');
  document.querySelector('main').replaceWith(main);
}

if (form) {
  form.onsubmit = (event) => {
    event.preventDefault();
    sessionStorage.token = form.token.value;
    show();
  };
}
(async () => {
  for (;;) {
    await show();
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
})();
