"""requests -> tasks: reads what a caller sent, in whichever form, as one chat, and sees what can be seen without a model."""
