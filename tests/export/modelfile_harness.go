// Renders conversations through a Modelfile's template as Ollama does: its function `json`, and its types as templates see them.
package main

import (
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

type Property struct {
	Type        []string
	Enum        []any
	Description string
}

type Tool struct {
	Function struct {
		Name        string
		Description string
		Parameters  struct {
			Required   []string
			Properties map[string]Property
		}
	}
}

type Message struct {
	Role      string
	Content   string
	ToolCalls []struct {
		Function struct {
			Name      string
			Arguments map[string]any
		}
	}
}

type Case struct {
	Template string
	Messages []Message
	Tools    []Tool
}

func main() {
	var cases []Case
	if err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil {
		panic(err)
	}
	functions := template.FuncMap{"json": func(value any) string {
		text, _ := json.Marshal(value)
		return string(text)
	}}
	rendered := []string{}
	for _, one := range cases {
		parsed := template.Must(template.New("").Option("missingkey=zero").Funcs(functions).Parse(one.Template))
		var out strings.Builder
		values := map[string]any{"Messages": one.Messages, "Tools": one.Tools, "Response": "", "Think": false}
		if err := parsed.Execute(&out, values); err != nil {
			panic(err)
		}
		rendered = append(rendered, out.String())
	}
	json.NewEncoder(os.Stdout).Encode(rendered)
}
