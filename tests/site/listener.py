"""What a page of the browser asks for, and what goes wrong on it."""


def listen(page):
    """`page`, which from now on keeps the addresses it asks for in `asked` and its errors in `errors`."""
    page.asked, page.errors = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda message: page.errors.append(message.text) if message.type == "error" else None)
    return page
