"""The verbs, one function per stage; the stages meet here and nowhere below."""
