"""Parts of networks that several networks share."""
