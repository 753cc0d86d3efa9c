"""Where rows lie and when each of them came: tables, files, and the durable logs of pushed rows, as SQL reads them."""
