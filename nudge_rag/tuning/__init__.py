"""From labelled pairs and a store to a nudge that was judged on held-out pairs."""
