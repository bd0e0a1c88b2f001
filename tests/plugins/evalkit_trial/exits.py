raise SystemExit("this plugin exits when it is imported")
