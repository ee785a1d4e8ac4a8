"""The vocabulary by which preprocessing tells what a question is about. Data only: add a word, or a row.

General words of each subject, written down by hand. Each counts one, and a subject needs two of them; words that several
subjects share stand where they are most at home, or in none.
"""


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


SUBJECTS = {
    "law": _set(
        "plaintiff defendant court courts statute statutes liable liability tort negligence contract contracts offeree "
        "offeror breach jury trial judge evidence hearsay testimony testify witness attorney lawyer prosecution "
        "prosecutor convicted conviction felony misdemeanor burglary robbery larceny murder manslaughter homicide assault "
        "battery arson accomplice conspiracy deed conveyed easement landlord tenant lease mortgage devise testator heirs "
        "estate grantor grantee buyer seller constitution constitutional amendment congress legislature legislation "
        "jurisdiction appeal appellate supreme sued sue suit lawsuit damages injunction enforceable admissible "
        "inadmissible objection statutory treaty treaties arbitration sovereignty clause regulation lawful unlawful legal "
        "illegal law laws bail warrant custody gericht klage gesetz vertrag urteil recht ley leyes tribunal demanda "
        "contrato juez loi lois contrat juge"
    ),
    "medicine": _set(
        "patient patients diagnosis diagnosed symptom symptoms disease diseases treatment therapy clinical hospital "
        "physician doctor nurse surgery surgical medication medications drug drugs dose dosage infection infections "
        "infected virus viral viruses vaccine vaccination antibody antibodies antibiotic antibiotics bacterial pain fever "
        "cough chest abdominal lung lungs liver kidney renal cardiac heart artery arteries vein veins blood pressure "
        "hypertension diabetes insulin glucose cancer tumor tumour carcinoma biopsy syndrome lesion lesions nerve nerves "
        "muscle muscles bone bones fracture joint anatomy serum plasma urine pregnant pregnancy infant fetus birth "
        "menstrual uterus ovary prostate hiv aids hepatitis influenza examination mg mmhg dl prognosis acute chronic "
        "nutrition dietary diet vitamin vitamins obesity calories aging elderly mortality health healthcare inflammation "
        "immune allergic asthma stroke seizure anemia patiente arzt krankheit symptome médico enfermedad paciente médecin "
        "maladie"
    ),
    "psychology": _set(
        "psychology psychologist psychologists psychological therapist counselor behavior behaviors behaviour behavioral "
        "cognitive cognition personality emotion emotions emotional memory motivation reinforcement conditioning stimulus "
        "stimuli freud piaget erikson skinner pavlov attachment anxiety depression depressed schizophrenia disorder "
        "disorders phobia self-esteem perception attitude attitudes stereotype stereotypes prejudice conformity "
        "development adolescents adolescence child children parents client clients intelligence iq test tests subjects "
        "participants dissonance attribution unconscious ego sensory learning sociology sociologists sociological "
        "socialization gender deviance norms stratification bureaucracy marx durkheim weber sexual sexuality "
        "relationships group groups"
    ),
    "economics": _set(
        "demand supply elasticity elastic inelastic equilibrium monopoly monopolist monopolistic oligopoly competition "
        "competitive marginal inflation unemployment gdp gnp monetary fiscal policy federal reserve interest tariff "
        "tariffs exports imports trade currency exchange consumer consumers consumption goods economy economic economics "
        "economist economists keynesian classical aggregate wages wage labor output prices price quantity surplus "
        "shortage deficit recession curve utility regression autocorrelation heteroscedasticity ols estimator estimators "
        "residuals stationary multiplier phillips quota market markets money nominal real inefficiency externality "
        "externalities scarcity opportunity"
    ),
    "business": _set(
        "marketing firm company companies corporation corporate business businesses management manager managers employee "
        "employees revenue profit profits cost costs tax taxes taxation investment investments investor investors stock "
        "stocks share shares shareholder shareholders bond bonds dividend dividends income services product products "
        "brand brands sales retailer customer customers advertising accounting accountant cpa audit auditor auditors "
        "balance assets liabilities equity cash depreciation inventory ledger budget budgeting loan bank banks capital "
        "salary discount discounted payment payments invoice organisation organisations organization organizational "
        "stakeholders stakeholder leadership strategy strategic pricing annual purchase purchased sold selling price "
        "dollars credit debt debit maturity par yield yields portfolio unternehmen umsatz empresa precio entreprise prix"
    ),
    "computing": _set(
        "computer computers algorithm algorithms software hardware operating cpu processor memory cache bit bits byte "
        "bytes binary network networks tcp ip protocol packet packets router server servers client encryption encrypted "
        "cipher key keys hash password attacker vulnerability overflow database query relational compiler compilers "
        "programming program variable variables loop recursion recursive array arrays pointer stack queue tree trees "
        "graph graphs node nodes vertex vertices edge edges sorting sort complexity np-complete turing automaton regular "
        "grammar boolean gate gates pixel pixels machine learning classifier neural training gradient descent overfitting "
        "kernel feature dataset data set parallel thread threads scheduling virtual page disk internet web https browser "
        "linux unix object class inheritance"
    ),
    "history": _set(
        "war wars empire emperor king queen dynasty revolution revolutionary century centuries ancient medieval colonial "
        "colony colonies colonists slavery slaves slave soviet union communist communism nazi british french german "
        "germany american americans europe european roman rome romans greek greece egypt egyptian china chinese japan "
        "japanese indian africa african islamic muslim christian church pope reformation protestant catholic peasants "
        "aristocracy feudal renaissance enlightenment napoleon lincoln roosevelt wilson jefferson washington churchill "
        "hitler stalin military army troops battle alliance independence nationalism imperialism industrial passage "
        "historian historians document source author archaeological archaeologists neolithic paleolithic pleistocene "
        "hominid homo neanderthal neanderthals pottery settlement maya aztec inca mesopotamia bce bc ad civilization "
        "civilizations artifacts tools years ago geschichte krieg historia guerra histoire guerre"
    ),
    "politics": _set(
        "government governments political politics politician politicians party parties election elections electoral vote "
        "voters voting voter senate senator house congress congressional president presidential democracy democracies "
        "democratic democrats republican republicans nation nations national states state foreign policy policies "
        "diplomacy diplomatic security threat threats deterrence treaty international united sovereignty regime terrorism "
        "interest lobbying campaign media bureaucracy federalism veto liberal conservative realism realists liberalism "
        "country countries population populations geography urban cities city region regional migration migrants borders "
        "territory culture globalization developing development agriculture world percent percentage public"
    ),
    "philosophy": _set(
        "philosophy philosopher philosophers philosophical moral morality morally ethics ethical unethical argument "
        "arguments premise premises conclusion fallacy fallacies valid validity sound kant kantian aristotle plato "
        "socrates hume descartes nietzsche mill utilitarian utilitarianism utility virtue virtues duty duties "
        "deontological consequentialist consequentialism relativism epistemology metaphysics knowledge belief beliefs "
        "truth god gods religion religious faith divine soul buddhist buddhism buddha hindu hinduism jewish judaism torah "
        "quran bible jesus muhammad confucius daoism zen sikh guru karma dharma free will autonomy rights justice "
        "euthanasia abortion animals singer rawls nozick pleasure happiness good wrong right human nature existence "
        "predicate logic symbolized translates proposition translation logically equivalent contradictory"
    ),
    "engineering": _set(
        "circuit circuits transistor amplifier diode antenna transformer motor generator rotor armature winding windings "
        "coil shunt excited resistor resistance impedance capacitor inductance inductor voltage volts volt ampere amperes "
        "ohm ohms logic flip-flop register adc signal signals bandwidth filter feedback transfer control damping "
        "modulation decoder beam beams shear bending column steel concrete load loads truss stress strain modulus pipe "
        "pipes flow fluid viscosity reynolds laminar turbulent nozzle pump pumps compressor turbine boiler steam "
        "refrigerant refrigerator heat exchanger insulation thickness wall plate diameter ft lb lbf lbm btu psi psia hp "
        "rpm kw horsepower efficiency engine cycle convection conduction radiation conductivity coefficient drag friction "
        "manometer specific inlet exit shaft gear"
    ),
    "physics": _set(
        "force forces mass velocity speed acceleration momentum energy kinetic potential joule joules watt watts newton "
        "newtons gravity gravitational friction pressure temperature thermal thermodynamic entropy adiabatic isothermal "
        "ideal density wave waves wavelength frequency amplitude oscillation pendulum spring light optical lens lenses "
        "focal mirror refraction diffraction interference photon photons electron electrons proton protons neutron "
        "neutrons quantum particle particles relativity electric electrical magnetic magnetism field fields charge "
        "charges charged current conductor torque angular rotational inertia radius orbit orbital planet planets star "
        "stars galaxy galaxies solar sun moon earth telescope universe astronomers asteroid comet mars venus jupiter "
        "nebula spacecraft satellite sound intensity slit slits grating ray rays nucleus nuclear fission kg km hz khz mhz "
        "nm cm mm meters metre metres metal incident collision elastic projectile horizontal vertical rest object "
        "distance uniform sphere vacuum emf tesla coulomb"
    ),
    "chemistry": _set(
        "chemical chemistry reaction reactions molecule molecules molecular atom atoms atomic bond bonds bonding ion ions "
        "ionic covalent acid acids acidic base bases ph pka buffer titration solution solutions solute solvent solubility "
        "molar molarity mole moles mol oxidation reduction redox oxidized reduced electrolysis anode cathode electrode "
        "catalyst enthalpy gibbs equilibrium hydrogen oxygen nitrogen carbon sodium chloride chlorine sulfur sulfuric "
        "potassium calcium magnesium aluminum iron copper zinc silver lead bromine iodine fluorine ammonia nitrate "
        "sulfate carbonate hydroxide oxide methane ethane ethanol benzene alkane alkene ketone aldehyde ester amine "
        "organic inorganic isotope isotopes radioactive half-life nmr spectrum spectroscopy orbital orbitals compound "
        "compounds element elements periodic grams gram ml liter liters precipitate precipitates stoichiometric nacl hcl "
        "naoh h2o co2 nh3"
    ),
    "biology": _set(
        "cell cells cellular gene genes genetic genetics genome dna rna mrna protein proteins enzyme enzymes amino "
        "chromosome chromosomes mitosis meiosis allele alleles dominant recessive genotype phenotype offspring mutation "
        "mutations evolution evolutionary selection species population populations organism organisms bacteria bacterium "
        "fungi fungus plant plants leaf leaves root roots stem seed seeds flower flowers pollen photosynthesis "
        "chlorophyll chloroplast mitochondria membrane nucleus ribosome ribosomes transcription translation replication "
        "ecosystem ecology predator prey habitat mammal mammals bird birds fish fishes reptile reptiles amphibian insect "
        "insects animal vertebrate vertebrates embryo egg eggs sperm gamete gametes zygote hormone hormones receptor "
        "receptors synapse neuron neurons tissue tissues organ organs atp glycolysis metabolism respiration virus phylum "
        "taxonomy darwin inherited hybrid"
    ),
}
"""Subject → its words. The order breaks ties: the earlier one wins."""

SUBJECTS_OF = {
    word: tuple(subject for subject, words in SUBJECTS.items() if word in words) for word in frozenset().union(*SUBJECTS.values())
}
